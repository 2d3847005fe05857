"""Whether two checkpoints are the same, without reading all of them."""

import hashlib
from pathlib import Path
from typing import Any

from safetensors import safe_open

from llava_next_video.model.checkpoint import SMALL, named_failures
from llava_next_video.model.layouts import in_memory

_PARTS, _NUMBERS = 16, 64


def fingerprint(folder: Path) -> str:
    """A digest of the weights: their names, their shapes, and numbers all over them.

    Of each matrix 16 rows are looked at, at 64 numbers each, one row's further right than the last's. Layout
    and shards do not matter, nor does the precision, if it keeps the numbers.

    Raises:
        CheckpointError: A file is corrupt.
    """
    told: list[tuple[str, str]] = []
    with named_failures(str(folder)):
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (a file is no mapping)
                    told.append((in_memory(key), _samples(file, key)))
    return hashlib.sha256(repr(sorted(told)).encode()).hexdigest()


def whole_fingerprint(folder: Path) -> str:
    """A short digest of all that decides an answer: weights (as `fingerprint`), settings and words.

    Raises:
        CheckpointError: A file is corrupt.
    """
    digest = hashlib.sha256(fingerprint(folder).encode())
    for path in sorted(path for pattern in SMALL for path in folder.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _samples(file: Any, key: str) -> str:
    """The shape of a weight and a digest of some of its numbers; of a vector, of all."""
    weight = file.get_slice(key)
    shape = weight.get_shape()
    digest = hashlib.sha256()
    if len(shape) < 2:
        digest.update(file.get_tensor(key).double().numpy().tobytes())
    else:
        for part in range(_PARTS):
            at = shape[0] * part // _PARTS
            row = weight[at : at + 1].flatten()
            start = max(0, len(row) - _NUMBERS) * part // (_PARTS - 1)
            digest.update(row[start : start + _NUMBERS].double().numpy().tobytes())
    return f"{shape} {digest.hexdigest()}"
