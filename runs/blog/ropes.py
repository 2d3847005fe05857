"""Ways to stretch positions that longer clips are read with, and which of them the product would choose."""

from __future__ import annotations

from network import CELLS, LAYERS, WIDTH
from networks import HEADS, THETA, Turning
from torch import device as Device
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llava_next_video.long_video import RopeScaling
from llava_next_video.model.context import chosen_rope
from llava_next_video.model.rope import scaled_rotary

TRAINED_FRAMES = (4, 8, 12, 16)
READ_FRAMES = (4, 8, 16, 32, 64)
WORDS = 64
"""Tokens that a question and its answer take at most."""
HEAD = 4
"""Tokens before a clip."""
WAYS = ("linear", "dynamic", "yarn")


def tokens_of(frames: int) -> int:
    """Of a prompt and its answer about so many frames.

    >>> [tokens_of(frames) for frames in READ_FRAMES]
    [132, 196, 324, 580, 1092]
    """
    return HEAD + frames * CELLS**2 + WORDS


def config_of() -> LlamaConfig:
    """What the networks' config.json would say of positions."""
    return LlamaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=tokens_of(TRAINED_FRAMES[-1]),
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )


def automatic(frames: int) -> RopeScaling | None:
    """What the product's rule (`--rope-factor auto`) gives networks of 16 frames; None: as they are."""
    return chosen_rope(config_of(), RopeScaling(), tokens_of(frames))


def tried(frames: int) -> list[RopeScaling | None]:
    """All that clips of so many frames are read with; None: as they are."""
    least = chosen_rope(config_of(), RopeScaling(kind="linear"), tokens_of(frames))
    factors = {1.5, 2.0, 4.0}
    if least is not None and least.factor is not None:
        factors |= {3.0, least.factor, 2 * least.factor}
    found = {None, automatic(frames)} | {
        RopeScaling(kind=way, factor=factor) for way in WAYS for factor in factors
    }
    return sorted(found, key=lambda rope: (WAYS.index(rope.kind), rope.factor or 0.0) if rope else (-1, 0.0))


def turning_of(rope: RopeScaling | None, device: Device) -> Turning | None:
    """How the product turns heads under a scaling."""
    if rope is None:
        return None
    rotary = scaled_rotary(LlamaRotaryEmbedding, config_of(), rope)
    return Turning(speeds=rotary.inv_freq.to(device), strength=float(rotary.attention_scaling))


def name_of(rope: RopeScaling | None) -> str:
    """A scaling in words.

    >>> name_of(RopeScaling(kind="yarn", factor=2.0)), name_of(None)
    ('yarn 2', 'none')
    """
    return "none" if rope is None else f"{rope.kind} {rope.factor:g}"
