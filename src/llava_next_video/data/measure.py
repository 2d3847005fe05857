"""How many visual tokens a medium becomes, before and after it is decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol, runtime_checkable

from llava_next_video.data.decoder import Decoded
from llava_next_video.data.record import Slice, source_name
from llava_next_video.errors import MediaError
from llava_next_video.geometry import ImageLayout, VideoLayout
from llava_next_video.media import Clip, Limits, Sampling
from llava_next_video.media.image import open_picture
from llava_next_video.messages import Image, Video
from llava_next_video.size import Size

EXIF_ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)


@runtime_checkable
class Layouts(Protocol):
    """Who knows how a medium becomes visual tokens: a model's configuration."""

    def image_layout(self, image: Size) -> ImageLayout:
        """How a picture of that size is cut."""
        ...

    def video_layout(self, frames: int) -> VideoLayout:
        """How a clip of that many frames is laid out."""
        ...


def visual_tokens(decoded: Decoded, layouts: Layouts) -> int:
    """Visual tokens of a medium that was decoded."""
    if isinstance(decoded, Clip):
        return layouts.video_layout(len(decoded.frames)).tokens
    return layouts.image_layout(decoded.size).tokens


def expected_tokens(medium: Image | Video, sampling: Sampling, layouts: Layouts) -> int:
    """Visual tokens a medium will have, from its header; a clip is taken to be long enough for its frames.

    Raises:
        MediaError: The picture does not open.
    """
    if isinstance(medium, Video):
        return layouts.video_layout(sampling.frames).tokens
    return layouts.image_layout(picture_size(medium.source)).tokens


def picture_size(source: object) -> Size:
    """Pixels of a picture as it stands upright, without decoding it.

    Raises:
        MediaError: It does not open, or is not at hand (a URL, an array).
    """
    match source:
        case str() if "://" not in source and not source.startswith("data:"):
            try:
                with Path(source).open("rb") as file:
                    return _header_size(file, source)
            except OSError as error:
                raise MediaError(f"{source}: {error.strerror or error}") from error
        case bytes():
            return _header_size(io.BytesIO(source), source_name(source))
        case Slice():
            return _header_size(io.BytesIO(source.read()), source_name(source))
    raise MediaError(f"{source_name(source)}: the size is not known before it is read")


def _header_size(file: io.BufferedIOBase, name: str) -> Size:
    image = open_picture(file, name, Limits())
    if image is None:
        raise MediaError(f"{name}: no picture that can be read")
    if image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS:
        return Size(height=image.width, width=image.height)
    return Size(height=image.height, width=image.width)
