"""The number formats that weights can have."""

from collections.abc import Mapping
from typing import Literal

import torch

from llava_next_video.errors import ConfigError

DType = Literal["float32", "bfloat16", "float16"]
FLOATS: Mapping[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def read_dtype(name: str) -> DType:
    """The name of a number format, checked.

    >>> FLOATS[read_dtype("float16")]
    torch.float16

    Raises:
        ConfigError: It is none that we know.
    """
    for known in FLOATS:
        if name == known:
            return known
    raise ConfigError(f"unknown dtype {name!r}; known: {', '.join(FLOATS)}")
