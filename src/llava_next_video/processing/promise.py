"""Clips and pictures as media of a prompt: a key now, pixels when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from llava_next_video.inputs import Medium
from llava_next_video.media import Clip, Picture
from llava_next_video.processing.frames import video_pixels
from llava_next_video.processing.pictures import picture_pixels
from llava_next_video.processing.prompt import Span
from llava_next_video.processing.settings import PixelSettings
from llava_next_video.size import Size


def promised_clip(clip: Clip, span: Span, settings: PixelSettings) -> Medium:
    """A clip at its place in the prompt; its pixels are made when they are asked for."""
    pixels = partial(video_pixels, torch.from_numpy(clip.frames).permute(0, 3, 1, 2), settings)
    return _promised(span, pixels, None, (clip.key, clip.indices, settings))


def promised_picture(
    picture: Picture, span: Span, settings: PixelSettings, pinpoints: Sequence[Size]
) -> Medium:
    """A picture at its place in the prompt; its tiles are made when they are asked for."""

    def pixels() -> Tensor:
        return torch.from_numpy(picture_pixels(picture.image, settings, pinpoints))

    size = Size(picture.image.height, picture.image.width)
    return _promised(span, pixels, size, (picture.key, settings, tuple(pinpoints)))


def _promised(
    span: Span, pixels: Callable[[], Tensor], size: Size | None, source: tuple[object, ...]
) -> Medium:
    """Everything that decides the pixels goes into the key; records of numbers print the same everywhere."""
    key = hashlib.sha256(repr((span.kind, *source)).encode()).digest()
    return Medium(kind=span.kind, start=span.start, tokens=span.tokens, key=key, size=size, pixels=pixels)
