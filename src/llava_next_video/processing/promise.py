"""Media of a prompt: a key now, pixels when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava_next_video.inputs import Medium, MediumKind, ModelInputs
from llava_next_video.long_video import ClipLayout
from llava_next_video.media import Clip, Picture
from llava_next_video.processing.call import CallOptions
from llava_next_video.processing.chat import Rendered
from llava_next_video.processing.counting import Counting
from llava_next_video.processing.frames import video_pixels
from llava_next_video.processing.pictures import picture_pixels
from llava_next_video.processing.prompt import Placeholders, Span
from llava_next_video.processing.settings import PixelSettings
from llava_next_video.processing.text import encoded_text, refuse_miscounted
from llava_next_video.size import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePixels:
    """The pixels of a clip, made when they are asked for."""

    frames: UInt8[Tensor, "frames height width channels"]
    settings: PixelSettings

    def __call__(self) -> Tensor:
        """Made here."""
        return video_pixels(self.frames.permute(0, 3, 1, 2), self.settings)

    def on(self, device: torch.device) -> Tensor:
        """Made on a device, to which the frames go as bytes; a resized value may round to its neighbour."""
        if device.type == "cpu":
            return self()
        there = self.frames.pin_memory().to(device, non_blocking=True)
        return video_pixels(there.permute(0, 3, 1, 2), self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """Settings under which pixels are promised."""

    clips: PixelSettings
    pictures: PixelSettings
    pinpoints: tuple[Size, ...]
    counting: Counting
    layout: ClipLayout | None = None

    def prepared(
        self,
        one: Rendered,
        media: Sequence[Clip | Picture],
        tokenizer: PreTrainedTokenizerBase,
        placeholders: Placeholders,
    ) -> tuple[ModelInputs, tuple[bool, ...]]:
        """A rendered conversation and its media as inputs, and for each id whether the assistant said it.

        Raises:
            PromptError: Placeholders and media do not agree.
        """
        clips = [medium for medium in media if isinstance(medium, Clip)]
        pictures = [medium for medium in media if isinstance(medium, Picture)]
        refuse_miscounted([one], {"image": len(pictures), "video": len(clips)}, placeholders)
        tokens: dict[MediumKind, Iterator[int]] = {
            "image": (self.counting.picture(_size(one), self.pictures, self.pinpoints) for one in pictures),
            "video": (self.counting.clip(len(clip.frames), self._seen(clip), self.layout) for clip in clips),
        }
        prompt = encoded_text(one, tokens, tokenizer, placeholders, CallOptions(from_template=True))
        next_clip, next_picture = iter(clips), iter(pictures)
        promised = tuple(
            self._clip(next(next_clip), span)
            if span.kind == "video"
            else self._picture(next(next_picture), span)
            for span in prompt.spans
        )
        return ModelInputs(ids=prompt.ids, media=promised), prompt.spoken

    def _seen(self, clip: Clip) -> Size:
        return self.clips.seen(Size(*clip.frames.shape[1:3]))

    def _clip(self, clip: Clip, span: Span) -> Medium:
        pixels = FramePixels(frames=torch.from_numpy(clip.frames), settings=self.clips)
        source = (clip.key, clip.indices, self.clips, self.layout)
        return replace(_promised(span, pixels, None, source), layout=self.layout)

    def _picture(self, picture: Picture, span: Span) -> Medium:
        def pixels() -> Tensor:
            return torch.from_numpy(picture_pixels(picture.image, self.pictures, self.pinpoints))

        return _promised(span, pixels, _size(picture), (picture.key, self.pictures, self.pinpoints))


def _size(picture: Picture) -> Size:
    return Size(picture.image.height, picture.image.width)


def _promised(
    span: Span, pixels: Callable[[], Tensor], size: Size | None, source: tuple[object, ...]
) -> Medium:
    """Everything that decides the pixels goes into the key; records of numbers print the same everywhere."""
    key = hashlib.sha256(repr((span.kind, *source)).encode()).digest()
    return Medium(kind=span.kind, start=span.start, tokens=span.tokens, key=key, size=size, pixels=pixels)
