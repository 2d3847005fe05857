"""Ways to stretch positions that longer clips are read with, and which of them the product would choose."""

from __future__ import annotations

from transformers import LlamaConfig

from llava_next_video.long_video import RopeKind, RopeScaling
from llava_next_video.model.context import chosen_rope

TRAINED_FRAMES = (4, 8, 12, 16)
READ_FRAMES = (4, 8, 16, 32, 64)
WORDS = 64
"""Tokens that a question and its answer take at most."""
HEAD, FRAME = 4, 16
"""Tokens before a clip, and of each frame."""
WAYS: tuple[RopeKind, ...] = ("linear", "dynamic", "yarn")


def tokens_of(frames: int) -> int:
    """Of a prompt and its answer about so many frames.

    >>> [tokens_of(frames) for frames in READ_FRAMES]
    [132, 196, 324, 580, 1092]
    """
    return HEAD + frames * FRAME + WORDS


def automatic(frames: int) -> RopeScaling | None:
    """What the product's rule (`--rope-factor auto`) gives networks of 16 frames; None: as they are."""
    return least(frames, "auto")


def least(frames: int, way: RopeKind) -> RopeScaling | None:
    """A scaling of that kind by the least factor, in halves, that fits; None: as they are.

    >>> [name_of(least(frames, "linear")) for frames in READ_FRAMES]
    ['none', 'none', 'none', 'linear 2', 'linear 3.5']
    """
    trained = LlamaConfig(max_position_embeddings=tokens_of(TRAINED_FRAMES[-1]))
    return chosen_rope(trained, RopeScaling(kind=way), tokens_of(frames))


def tried(frames: int) -> list[RopeScaling | None]:
    """All that clips of so many frames are read with; None: as they are."""
    factors = {1.5, 2.0, 4.0}
    if (fitting := least(frames, "linear")) and fitting.factor:
        factors |= {3.0, fitting.factor, 2 * fitting.factor}
    found = {None, automatic(frames)} | {
        RopeScaling(kind=way, factor=factor) for way in WAYS for factor in factors
    }
    return sorted(found, key=lambda rope: (WAYS.index(rope.kind), rope.factor or 0.0) if rope else (-1, 0.0))


def name_of(rope: RopeScaling | None) -> str:
    """A scaling in words.

    >>> name_of(RopeScaling(kind="yarn", factor=2.0)), name_of(None)
    ('yarn 2', 'none')
    """
    return "none" if rope is None else f"{rope.kind} {rope.factor:g}"
