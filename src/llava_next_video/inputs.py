"""What a model eats: ids, and the media between them.

Knows nothing about text, files or networks: a processor writes these records, a model or the engine reads
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from llava_next_video.size import Size

MediumKind = Literal["image", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """One clip or picture inside a prompt.

    Attributes:
        kind: `video` has frames x channels x height x width pixels; `image` has tiles (base tile first).
        start: Index in the ids of its first placeholder.
        tokens: Number of placeholders, all in a row: its visual tokens.
        key: Content hash of the source bytes, the sampling and the processor settings (32 bytes). Two media
            with equal keys have equal visual features.
        size: Pixels of the original picture, which decide the packing of its tiles; None for a video.
        pixels: The normalised pixels, or a function that makes (or waits for) them. It is not called
            when the features of `key` are cached.
    """

    kind: MediumKind
    start: int
    tokens: int
    key: bytes
    size: Size | None
    pixels: Float[Tensor, "tiles channels height width"] | Callable[[], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """One prompt: its ids with placeholders already repeated, and its media in order of appearance."""

    ids: tuple[int, ...]
    media: tuple[Medium, ...] = ()
