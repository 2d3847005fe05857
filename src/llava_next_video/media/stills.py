"""Clips that come as single frames: folders, lists, arrays."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media.clip import Clip, Picture, clip_of, empty_frames
from llava_next_video.media.clock import Clock, steady_clock
from llava_next_video.media.fetch import FetchPolicy
from llava_next_video.media.image import open_picture, picture_of, upright_rgb
from llava_next_video.media.limits import Limits
from llava_next_video.media.sampling import Sampling
from llava_next_video.media.source import Opened, Still, opened
from llava_next_video.size import Size

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif"}
_CLIP_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts"}


def frames_in(folder: Path) -> list[Path]:
    """The pictures in a folder in natural order: frame2 before frame10.

    Raises: MediaError if there are none.
    """
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _CLIP_SUFFIXES)
        clips = [name for name in names if not name.startswith(".")]
        if clips:
            raise MediaError(
                f"{folder}: a folder is read as one clip of pictures, and this one holds clips "
                f"({len(clips)}, such as {clips[0]}); give the clips themselves, or caption all of them with "
                f"`llava-next-video caption {folder} --output captions`"
            )
        raise MediaError(f"{folder}: a folder without frames; expected pictures such as 0001.jpg, 0002.jpg")
    return sorted(found, key=lambda path: natural(path.name))


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that reads runs of digits as numbers.

    >>> sorted(["f10.png", "f2.png", "f1.png"], key=natural)
    ['f1.png', 'f2.png', 'f10.png']
    """
    return [(int(part), part) if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def read_still(source: Still, limits: Limits, policy: FetchPolicy) -> Picture:
    """One picture, upright and in RGB; of an animated one the first frame."""
    if isinstance(source, np.ndarray):
        return _picture(picture_of(source, "array"), array_key(source), "array")
    if isinstance(source, Image.Image):
        if 0 in source.size:
            raise MediaError(f"a picture of {source.width}x{source.height} pixels was given; it is empty")
        return _picture(upright_rgb(source, "picture"), _pixels_key(source), "picture")
    with opened(source, limits, policy) as encoded:
        found = open_picture(encoded.file, encoded.name, limits)
        if found is None:
            raise MediaError(
                f"{encoded.name}: not a picture; expected png, jpg, webp, gif, bmp, tiff or avif "
                "(read_clip reads clips)"
            )
        return encoded_picture(found, encoded)


def encoded_picture(image: Image.Image, encoded: Opened) -> Picture:
    """The picture that was found in a source."""
    return _picture(upright_rgb(image, encoded.name), encoded.key, encoded.name)


def _picture(image: Image.Image, key: bytes, name: str) -> Picture:
    return Picture(image=image, key=key, name=name, size=Size(image.height, image.width))


def read_stills(
    items: Sequence[Still],
    name: str,
    sampling: Sampling,
    limits: Limits,
    policy: FetchPolicy,
    frames_per_second: float | int,
) -> Clip:
    """A row of pictures as a clip; all are hashed, the sampled ones are decoded.

    Raises: MediaError if there are none, one cannot be read or they differ in size; MediaLimitError.
    """
    if not items:
        raise MediaError(f"{name}: no frames; expected at least one")
    clock = _checked_clock(len(items), name, limits, frames_per_second)
    indices = clock.choose(sampling)
    slots = {index: slot for slot, index in enumerate(indices)}
    frames: np.ndarray | None = None
    whole = hashlib.sha256(b"frames")
    for number, item in enumerate(items):
        if number not in slots:
            whole.update(_key_of(item, limits, policy))
            continue
        picture = read_still(item, limits, policy)
        whole.update(picture.key)
        if frames is None:
            frames = empty_frames(len(indices), picture.size, name, limits)
        if picture.size != frames.shape[1:3]:
            raise MediaError(
                f"{name}: frame {number} is {picture.size.width}x{picture.size.height} and the first is "
                f"{frames.shape[2]}x{frames.shape[1]}; expected one size"
            )
        frames[slots[number]] = picture.image
    assert frames is not None
    return clip_of(frames, clock, indices, sampling, whole.digest(), name)


def read_array(array: np.ndarray, sampling: Sampling, limits: Limits, frames_per_second: float | int) -> Clip:
    """An array (frames, height, width, 3) of uint8 as a clip.

    Raises: MediaError for other shapes and types; MediaLimitError.
    """
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or array.size == 0:
        raise MediaError(
            f"an array of {array.dtype} with shape {array.shape} was given; expected uint8 with shape "
            "(frames, height, width, 3) and at least one frame"
        )
    clock = _checked_clock(len(array), "array", limits, frames_per_second)
    indices = clock.choose(sampling)
    frames = empty_frames(len(indices), Size(*array.shape[1:3]), "array", limits)
    np.take(array, indices, axis=0, out=frames)
    return clip_of(frames, clock, indices, sampling, array_key(array), "array")


def _checked_clock(count: int, name: str, limits: Limits, frames_per_second: float | int) -> Clock:
    if count > limits.frames:
        raise MediaLimitError(f"{name}: {count} frames, and the limit is {limits.frames}")
    clock = steady_clock(count, frames_per_second)
    clock.check(name, limits)
    return clock


def _key_of(item: Still, limits: Limits, policy: FetchPolicy) -> bytes:
    if isinstance(item, np.ndarray):
        return array_key(item)
    if isinstance(item, Image.Image):
        return _pixels_key(item)
    with opened(item, limits, policy) as encoded:
        return encoded.key


def array_key(array: np.ndarray) -> bytes:
    """SHA-256 over type, shape and values, so that the same bytes in another shape are another clip."""
    whole = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    whole.update(np.ascontiguousarray(array).data)
    return whole.digest()


def _pixels_key(image: Image.Image) -> bytes:
    whole = hashlib.sha256(f"{image.mode} {image.size} {image.getpalette()} ".encode())
    whole.update(image.tobytes())
    return whole.digest()
