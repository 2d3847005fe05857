"""Pictures, upright in RGB; animated ones as clips."""

import io
from typing import IO, cast

import numpy as np
from jaxtyping import UInt8
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media.clip import Clip, Frames, clip_of, empty_frames
from llava_next_video.media.clock import Clock
from llava_next_video.media.limits import Limits
from llava_next_video.media.sampling import Sampling
from llava_next_video.size import Size

# Formats that Pillow decodes by itself (it would hand EPS to Ghostscript). Their readers are imported by
# name, because `Image.init` imports all forty.
_READERS = {
    "PNG": PngImagePlugin,
    "JPEG": JpegImagePlugin,
    "GIF": GifImagePlugin,
    "WEBP": WebPImagePlugin,
    "BMP": BmpImagePlugin,
    "TIFF": TiffImagePlugin,
    "PPM": PpmImagePlugin,
    "AVIF": AvifImagePlugin,
}
_FORMATS = tuple(form for form in _READERS if form in Image.OPEN)
# Several pictures in a JPEG (depth, gain map) or TIFF (pages) are no film.
_ANIMATED = {"GIF", "WEBP", "PNG", "AVIF"}
# What browsers show for frames that claim to last no time at all.
_DEFAULT_FRAME_S = 0.1
# Pillow speaks of damage in all of these.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, OverflowError)


def open_picture(file: io.BufferedIOBase, name: str, limits: Limits) -> Image.Image | None:
    """The picture in a file, not decoded yet; None if it is no picture.

    Raises: MediaLimitError if it has too many pixels.
    """
    file.seek(0)
    try:
        image = Image.open(cast(IO[bytes], file), formats=_FORMATS)
    except UnidentifiedImageError:
        return None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaLimitError(f"{name}: too many pixels; the limit is {limits.pixels}") from error
    except (OSError, ValueError):
        return None
    if image.width * image.height > limits.pixels:
        raise MediaLimitError(
            f"{name}: {image.width}x{image.height} pixels, and the limit is {limits.pixels} pixels"
        )
    return image


def is_animated(image: Image.Image) -> bool:
    """Whether the picture moves."""
    return image.format in _ANIMATED and bool(getattr(image, "is_animated", False))


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """The picture as RGB: turned by its EXIF tag, transparency laid on white, 16 bits scaled to 8.

    >>> upright_rgb(Image.new("LA", (1, 1), (0, 0)), "clear").getpixel((0, 0))
    (255, 255, 255)

    Raises: MediaError if its data are damaged, or its values have no known scale.
    """
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            return Image.fromarray(_eight_bits(np.asarray(image), name)).convert("RGB")
        return on_white(image)
    except _BROKEN as error:
        raise MediaError(f"{name}: the picture is damaged or incomplete ({error})") from error


def on_white(image: Image.Image) -> Image.Image:
    """The picture in RGB, transparent parts laid on white."""
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, name: str) -> UInt8[np.ndarray, "height width"]:
    """One channel of 16-bit counts, or of floats between 0 and 1, in 8 bits."""
    low, high = values.min(), values.max()
    scale = 65535 if np.issubdtype(values.dtype, np.integer) else 1.0
    if not (low >= 0 and high <= scale):
        raise MediaError(f"{name}: grey values from {low} to {high}; expected 0 to {scale}")
    return np.round(values.astype(np.float64) * (255 / scale)).astype(np.uint8)


def picture_of(array: np.ndarray, name: str) -> Image.Image:
    """An array as a picture: (height, width), or with 3 or 4 channels last, in uint8.

    Raises: MediaError for other shapes and types.
    """
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise MediaError(
            f"{name}: an array of {array.dtype} with shape {array.shape} was given; expected uint8 with "
            "shape (height, width, 3)"
        )
    if array.size == 0:
        raise MediaError(f"{name}: an empty array was given")
    return upright_rgb(Image.fromarray(array), name)


def animation_clock(image: Image.Image, name: str, limits: Limits) -> Clock:
    """When each frame of an animated picture is shown; walks it once.

    Raises: MediaLimitError beyond the limits on frames; MediaError if no frame can be read.
    """
    seconds: list[float] = []
    try:
        for number in range(getattr(image, "n_frames", 1)):
            if number >= limits.frames:
                raise MediaLimitError(f"{name}: more than {limits.frames} frames, which is the limit")
            image.seek(number)
            image.load()  # WebP and AVIF know a frame's duration only when it is decoded
            seconds.append(image.info.get("duration", 0) / 1000 or _DEFAULT_FRAME_S)
    except _BROKEN as error:
        if not seconds:
            raise MediaError(f"{name}: the animation is damaged ({error})") from error
    starts = np.concatenate([[0.0], np.cumsum(seconds[:-1])])
    total = sum(seconds)
    return Clock(
        times_s=starts,
        frames_per_second=len(seconds) / total,
        duration_s=total,
        steady=max(seconds) - min(seconds) <= 0.0025,
    )


def read_animation(image: Image.Image, key: bytes, name: str, sampling: Sampling, limits: Limits) -> Clip:
    """The sampled frames of an animated picture, upright and in RGB."""
    clock = animation_clock(image, name, limits)
    clock.check(name, limits)
    indices = clock.choose(sampling)
    frames: Frames | None = None
    for slot, index in enumerate(indices):
        image.seek(index)
        picture = upright_rgb(image, name)
        if frames is None:  # the size of an upright frame is known once there is one
            frames = empty_frames(len(indices), Size(picture.height, picture.width), name, limits)
        frames[slot] = picture
    assert frames is not None
    return clip_of(frames, clock, indices, sampling, key, name)
