"""What a model eats: ids, and the media between them.

Knows nothing about text, files or networks: a processor writes these records, a model or the engine reads
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from llava_next_video.long_video import ClipLayout, RopeScaling
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
        layout: How the frames of a clip become tokens, where that is not as the checkpoint says; part of what
            `key` stands for.
        pixels: The normalised pixels, or a function that makes (or waits for) them. It is not called
            when the features of `key` are cached.
    """

    kind: MediumKind
    start: int
    tokens: int
    key: bytes
    size: Size | None
    pixels: Float[Tensor, "tiles channels height width"] | Callable[[], Tensor]
    layout: ClipLayout | None = None

    def load(self) -> Float[Tensor, "tiles channels height width"]:
        """The pixels, made now if they were only promised."""
        return self.pixels if isinstance(self.pixels, Tensor) else self.pixels()

    def load_on(self, device: torch.device) -> Float[Tensor, "tiles channels height width"]:
        """The pixels on a device; a promise that has a method `on` makes them there."""
        there = getattr(self.pixels, "on", None)
        if there is not None:
            return there(device)
        pixels = self.load()
        if device.type == "cpu":
            return pixels
        return pixels.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """One prompt: its ids with placeholders already repeated, and its media in order of appearance.

    `rope` says how its positions are stretched; None: as the checkpoint says.
    """

    ids: tuple[int, ...]
    media: tuple[Medium, ...] = ()
    rope: RopeScaling | None = None

    @property
    def visual_tokens(self) -> int:
        """Placeholders in the ids, over all media."""
        return sum(medium.tokens for medium in self.media)


def padded_batch(
    prompts: Sequence[ModelInputs], *, pad_token_id: int, side: Literal["left", "right"] = "left"
) -> dict[str, Tensor | list[Tensor]]:
    """Several prompts as the arguments of the reference network's `forward` and `generate`.

    Gives `input_ids` and `attention_mask` (prompts x longest prompt) and, where there are media,
    `pixel_values` (pictures x most tiles x channels x height x width, zeros after a picture's own tiles) with
    `image_sizes` (pictures x 2, height first), and `pixel_values_videos`, a list with one tensor a clip, as
    clips differ in their number of frames.
    """
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        places = slice(longest - len(prompt.ids), None) if side == "left" else slice(len(prompt.ids))
        ids[row, places] = torch.tensor(prompt.ids)
        mask[row, places] = 1
    batch: dict[str, Tensor | list[Tensor]] = {"input_ids": ids, "attention_mask": mask}
    media = [medium for prompt in prompts for medium in prompt.media]
    if clips := [medium.load() for medium in media if medium.kind == "video"]:
        batch["pixel_values_videos"] = clips
    if pictures := [medium for medium in media if medium.kind == "image"]:
        batch["pixel_values"] = _stacked([picture.load() for picture in pictures])
        batch["image_sizes"] = torch.tensor([picture.size for picture in pictures])
    return batch


def _stacked(tiles: Sequence[Tensor]) -> Tensor:
    """One tensor for pictures of different tile counts."""
    stack = tiles[0].new_zeros((len(tiles), max(len(one) for one in tiles), *tiles[0].shape[1:]))
    for row, one in zip(stack, tiles, strict=True):
        row[: len(one)] = one
    return stack
