"""What each published checkpoint needs that its own config.json does not say.

A checkpoint is found here by the shape of its network, never by its name; a name is only used to refuse a
folder whose config contradicts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llava_next_video.convert.towers import TowerKind
from llava_next_video.errors import CheckpointError
from llava_next_video.geometry import NewlineMode, PoolMode
from llava_next_video.processing.chat import TemplateName

Family = Literal["llama", "mistral", "qwen2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells one network from another: text family and tower, and the size of the text network."""

    family: Family
    tower: TowerKind
    hidden_size: int
    layers: int

    def __str__(self) -> str:
        return f"{self.family} of {self.layers} layers x {self.hidden_size} with {self.tower}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A checkpoint of the original release, and how it was trained to be used.

    Attributes:
        name: Of the original, on the hub.
        shape: Of its network.
        template: The chat template that it was trained with.
        hub: Name of the conversion that transformers published, if there is one.
        hub_template: The template of that conversion, where it is another one.
        placeholders: Ids of `<video>` and `<image>` in that conversion.
        rope_factor: How far that conversion stretches the positions; None: not at all.
        video_newline: Where newlines stand in a clip.
        pool_before_projector: Frames are pooled, then projected.
        spatial_pool_mode: How frames are pooled.
        spatial_pool_stride: Patches a side that become one.
        frames: Most frames a clip had in training.
        sources: Where each of these is from.
    """

    name: str
    shape: Shape
    template: TemplateName
    hub: str | None = None
    hub_template: TemplateName | None = None
    placeholders: tuple[int, int] | None = None
    rope_factor: float | None = None
    video_newline: NewlineMode = "no_token"
    pool_before_projector: bool = True
    spatial_pool_mode: PoolMode = "average"
    spatial_pool_stride: int = 2
    frames: int = 32
    sources: tuple[str, ...] = field(default=())


_APRIL = (
    "pooling before the projector, no newlines, stride 2: LLaVA-NeXT, branch video_inference of April 2024, "
    "llava_arch.py; transformers and SGLang do the same",
    "32 frames: model card",
)
_VICUNA = (
    "template: LLaVA-NeXT issue 24 (maintainer)",
    "rope factor 2.5: config.json of the conversion (its script writes 2.0 where nothing reads it)",
)
_YI = (
    "template: scripts/video/demo; the conversion has chatml without a system turn",
    "placeholders: the tokenizer (ms-swift corrects the conversion's config.json, which says 64000, 64001)",
)
_QWEN = ("template, grid newlines: docs/LLaVA-NeXT-Video_0716.md",)
_LLAVA_VIDEO = (
    "template, grid newlines, 64 frames: docs/LLaVA_Video_1003.md",
    "bilinear pooling, stride 2: scripts/video/train, LLaVA-NeXT issue 408 (config.json has no stride)",
    "projector before the pooling: LLaVA-NeXT main, llava_arch.py, encode_multimodals",
)

PUBLISHED: tuple[Published, ...] = (
    Published(
        name="lmms-lab/LLaVA-NeXT-Video-7B",
        shape=Shape(family="llama", tower="clip", hidden_size=4096, layers=32),
        template="vicuna",
        hub="llava-hf/LLaVA-NeXT-Video-7B-hf",
        placeholders=(32000, 32001),
        rope_factor=2.5,
        sources=_APRIL + _VICUNA,
    ),
    Published(
        name="lmms-lab/LLaVA-NeXT-Video-7B-DPO",
        shape=Shape(family="llama", tower="clip", hidden_size=4096, layers=32),
        template="vicuna",
        hub="llava-hf/LLaVA-NeXT-Video-7B-DPO-hf",
        placeholders=(32000, 32001),
        rope_factor=2.5,
        sources=_APRIL + _VICUNA,
    ),
    Published(
        name="lmms-lab/LLaVA-NeXT-Video-7B-32K",
        shape=Shape(family="mistral", tower="clip", hidden_size=4096, layers=32),
        template="chatml_direct",
        hub="llava-hf/LLaVA-NeXT-Video-7B-32K-hf",
        hub_template="mistral",
        placeholders=(32000, 32001),
        sources=(*_APRIL, "template mistral_direct: LLaVA-NeXT issue 54 (maintainer)"),
    ),
    Published(
        name="lmms-lab/LLaVA-NeXT-Video-34B",
        shape=Shape(family="llama", tower="clip", hidden_size=7168, layers=60),
        template="chatml_direct",
        hub="llava-hf/LLaVA-NeXT-Video-34B-hf",
        hub_template="chatml",
        placeholders=(64003, 64004),
        sources=_APRIL + _YI,
    ),
    Published(
        name="lmms-lab/LLaVA-NeXT-Video-34B-DPO",
        shape=Shape(family="llama", tower="clip", hidden_size=7168, layers=60),
        template="chatml_direct",
        hub="llava-hf/LLaVA-NeXT-Video-34B-DPO-hf",
        hub_template="chatml",
        placeholders=(64003, 64004),
        sources=_APRIL + _YI,
    ),
    Published(
        name="lmms-lab/LLaVA-NeXT-Video-32B-Qwen",
        shape=Shape(family="qwen2", tower="clip", hidden_size=5120, layers=64),
        template="qwen",
        video_newline="grid",
        pool_before_projector=False,
        sources=(
            *_QWEN,
            "projector before the pooling unless mm_pooling_position says before: LLaVA-NeXT of July 2024; "
            "main has no other order (the checkpoint's own config.json was not at hand)",
        ),
    ),
    Published(
        name="lmms-lab/LLaVA-Video-7B-Qwen2",
        shape=Shape(family="qwen2", tower="siglip", hidden_size=3584, layers=28),
        template="qwen",
        video_newline="grid",
        pool_before_projector=False,
        spatial_pool_mode="bilinear",
        frames=64,
        sources=_LLAVA_VIDEO,
    ),
    Published(
        name="lmms-lab/LLaVA-Video-72B-Qwen2",
        shape=Shape(family="qwen2", tower="siglip", hidden_size=8192, layers=80),
        template="qwen",
        video_newline="grid",
        pool_before_projector=False,
        spatial_pool_mode="bilinear",
        frames=64,
        sources=_LLAVA_VIDEO,
    ),
)
"""The checkpoints of the original release; the first of several with one shape speaks for them."""


def published_as(shape: Shape) -> Published | None:
    """The published checkpoint of that shape, or None."""
    return next((known for known in PUBLISHED if known.shape == shape), None)


def relative_of(shape: Shape) -> Published | None:
    """A published checkpoint of the same text family and tower, whatever its size, or None."""
    alike = [k for k in PUBLISHED if (k.shape.family, k.shape.tower) == (shape.family, shape.tower)]
    return alike[0] if alike else None


def refuse_contradiction(name: str, shape: Shape) -> None:
    """Raise when a folder bears the name of a published checkpoint of another shape.

    Raises:
        CheckpointError: with both shapes.
    """
    for known in PUBLISHED:
        names = {known.name.rpartition("/")[2].lower(), (known.hub or known.name).rpartition("/")[2].lower()}
        if name.lower() in names and known.shape != shape:
            raise CheckpointError(
                f"the folder is called {name}, but its config.json is a {shape}, and {known.name} is a "
                f"{known.shape}; rename the folder if the config is right"
            )
