"""Frames to what the vision tower sees, in torch.

Frames stay bytes, in the channels-last order in which decoders give them, until the last step writes floats.
Nothing is computed that the central crop would throw away to the right or below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import interpolate

from llava_next_video.errors import ConfigError
from llava_next_video.processing.settings import PixelSettings, Resample
from llava_next_video.size import Size

Frames = Shaped[Tensor, "frames channels height width"]
Seen = Shaped[Tensor, "frames channels rows columns"]

ANTIALIASED: dict[Resample, Callable[..., Tensor]] = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,
}
"""The kernels under `interpolate`. Only they take a scale and an output size that do not match, which is how
the first columns of a wider picture are computed alone."""

REACH = {"bilinear": 1, "bicubic": 2}
"""How many output pixels a filter looks to each side when it shrinks a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The part of an axis that a central crop keeps: `start` to `stop`, after `padding` black pixels."""

    start: int
    stop: int
    padding: int


def video_pixels(frames: Frames, settings: PixelSettings) -> Seen:
    """The frames resized, cropped, rescaled and normalised, in channels-first order.

    The result has the bits that transformers' own video processor gives on torchvision.

    Raises:
        ConfigError: The filter is one that torch does not have.

    Source: transformers, `video_processing_utils.py`, `_preprocess`, and `image_processing_backends.py`,
    `TorchvisionBackend` (rounding of the crop, rescaling folded into mean and deviation).
    """
    count, channels, height, width = frames.shape
    size = Size(height, width)
    target, seen = settings.resized(size), settings.seen(size)
    rows, columns = _window(target.height, seen.height), _window(target.width, seen.width)
    pixels = _room((count, channels, *seen), frames, settings)
    inside = pixels[
        ...,
        rows.padding : rows.padding + rows.stop - rows.start,
        columns.padding : columns.padding + columns.stop - columns.start,
    ]
    mean, std = _folded(settings, pixels)
    # Frame by frame, the intermediate results stay in the cache of the core that made them.
    for frame, place, whole in zip(frames.split(1), inside.split(1), pixels.split(1), strict=True):
        place.copy_(_resized(frame, target, rows, columns, settings.resample))
        if mean is not None and std is not None:
            whole.sub_(mean).div_(std)
        elif settings.rescale is not None:
            whole.mul_(settings.rescale)
    return pixels


def resized(frames: Frames, size: Size, resample: Resample) -> Seen:
    """The frames at that size, in the type they came in."""
    rows, columns = _window(size.height, size.height), _window(size.width, size.width)
    return torch.cat([_resized(frame, size, rows, columns, resample) for frame in frames.split(1)])


def _room(shape: tuple[int, ...], frames: Tensor, settings: PixelSettings) -> Tensor:
    """Zeroed only where padding shows: bytes if bytes are wanted, otherwise floats."""
    keep = settings.rescale is None and settings.mean is None
    if frames.device.type != "cpu":
        return torch.zeros(shape, dtype=frames.dtype if keep else torch.float32, device=frames.device)
    # numpy asks the kernel for large pages, torch does not: first touches cost a third.
    kind = np.uint8 if keep and frames.dtype == torch.uint8 else np.float32
    padded = settings.crop is not None and settings.resized(Size(*frames.shape[-2:])) != settings.crop
    return torch.from_numpy((np.zeros if padded else np.empty)(shape, dtype=kind))


def _folded(settings: PixelSettings, pixels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Mean and deviation in the unit of the stored values."""
    if settings.mean is None or settings.std is None:
        return None, None
    unit = 1.0 if settings.rescale is None else 1.0 / settings.rescale
    mean, std = (torch.tensor(values) * unit for values in (settings.mean, settings.std))
    there = [values.to(pixels.device, non_blocking=True).view(-1, 1, 1) for values in (mean, std)]
    return there[0], there[1]


def _window(length: int, kept: int) -> _Window:
    if kept > length:
        return _Window(start=0, stop=length, padding=(kept - length) // 2)
    start = (length - kept) // 2
    return _Window(start=start, stop=start + kept, padding=0)


def _resized(frame: Tensor, target: Size, rows: _Window, columns: _Window, resample: Resample) -> Tensor:
    """One frame at the target size, but only the rows and columns of the windows."""
    height, width = frame.shape[-2:]
    if (height, width) == target:
        return frame[..., rows.start : rows.stop, columns.start : columns.stop]
    if resample == "nearest":
        whole = interpolate(frame, size=tuple(target), mode="nearest-exact")
        return whole[..., rows.start : rows.stop, columns.start : columns.stop]
    if resample not in ANTIALIASED:
        raise ConfigError(
            f"resample {resample!r} is for pictures only; frames take nearest, bilinear, bicubic"
        )
    if frame.dtype == torch.uint8 and frame.device.type != "cpu":
        blended = _resized(frame.float(), target, rows, columns, resample)
        return blended.round_().clamp_(0, 255).to(torch.uint8)
    # torch, too, goes along the rows first and rounds in between: the same bits come out.
    last_row = int((rows.stop + REACH[resample]) * max(height / target.height, 1)) + 2
    across = _stretched(frame[..., :last_row, :], 3, target.width, width, columns, resample)
    return _stretched(across, 2, target.height, height, rows, resample)


def _stretched(
    frame: Tensor, axis: int, target: int, length: int, window: _Window, resample: Resample
) -> Tensor:
    """The frame with one axis stretched from `length` to `target` pixels and cut to the window."""
    if target != length:
        stop = window.stop
        # The kernel takes an axis whose size stays as one that is not stretched.
        if stop == frame.shape[axis]:
            stop = target
        shape = [*frame.shape[2:]]
        shape[axis - 2] = stop
        scales: list[float | None] = [None, None]
        scales[axis - 2] = target / length
        frame = ANTIALIASED[resample](_channels_last(frame), shape, False, *scales)
    return frame.narrow(axis, window.start, window.stop - window.start)


def _channels_last(frame: Tensor) -> Tensor:
    """A frame whose channels are neighbours in memory, which the byte kernel is fastest on."""
    if frame.is_contiguous(memory_format=torch.channels_last):
        return frame
    return frame.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
