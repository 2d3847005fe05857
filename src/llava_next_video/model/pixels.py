"""Pixels as callers give them, in a row for the vision tower."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llava_next_video.errors import PromptError
from llava_next_video.geometry import ImageLayout

Pixels = Tensor | Sequence[Tensor]
"""Media stacked on a new first axis, or one tensor for each."""


def tiles_in_a_row(
    pixel_values: Pixels, layouts: Sequence[ImageLayout]
) -> Float[Tensor, "tiles channels height width"]:
    """The tiles of all images, without those that only pad the batch.

    Args:
        pixel_values: images x tiles x channels x height x width, padded on the tile axis; all tiles in a row
            (4 axes); or one tensor of tiles per image.
        layouts: One per image.

    Raises:
        PromptError: there are not as many images or tiles as the layouts say.
    """
    wanted = [layout.tile_count for layout in layouts]
    if isinstance(pixel_values, Tensor) and pixel_values.dim() == 4:
        if len(pixel_values) != sum(wanted):
            raise PromptError(f"pixel_values has {len(pixel_values)} tiles; image_sizes say {sum(wanted)}")
        return pixel_values
    images = list(pixel_values)
    if len(images) != len(wanted) or any(image.dim() != 4 for image in images):
        raise PromptError(
            f"pixel_values has {len(images)} images, {[tuple(image.shape) for image in images[:4]]}; "
            f"expected {len(wanted)} of tiles x channels x height x width, as image_sizes has {len(wanted)}"
        )
    for place, (image, tiles) in enumerate(zip(images, wanted, strict=True)):
        if len(image) < tiles:
            raise PromptError(
                f"image {place} has {len(image)} tiles, but its size and image_grid_pinpoints make {tiles}; "
                "the processor and the model need the same image_grid_pinpoints"
            )
    return torch.cat([image[:tiles] for image, tiles in zip(images, wanted, strict=True)])


def clip_list(pixel_values_videos: Pixels) -> list[Float[Tensor, "_ channels height width"]]:
    """Clips one by one: frames x channels x height x width each, as many frames as each has.

    Args:
        pixel_values_videos: clips x frames x channels x height x width; one tensor of frames per clip; or the
            frames of a single clip (4 axes).

    Raises:
        PromptError: a clip with another number of axes, or without frames.
    """
    if isinstance(pixel_values_videos, Tensor) and pixel_values_videos.dim() == 4:
        return [pixel_values_videos]
    clips = list(pixel_values_videos)
    if not clips or any(clip.dim() != 4 or not len(clip) for clip in clips):
        shapes = [tuple(clip.shape) for clip in clips[:4]]
        raise PromptError(f"each clip is frames x channels x height x width with frames in it, got {shapes}")
    return clips


def refuse_size(pixels: Float[Tensor, "tiles channels height width"], side: int) -> None:
    """Raise when tiles or frames are not of the size that the vision tower was made for."""
    height, width = pixels.shape[-2:]
    if (height, width) != (side, side):
        raise PromptError(
            f"the vision tower takes {side}x{side} pixels, got {height}x{width}; "
            f"set size and crop_size of the processor to {side}"
        )
