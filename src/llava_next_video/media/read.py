"""Read any source: as what it is, as a clip or as a picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media.clip import Clip, Picture
from llava_next_video.media.fetch import FetchPolicy, data_url_frames
from llava_next_video.media.image import is_animated, open_picture, read_animation
from llava_next_video.media.limits import Limits
from llava_next_video.media.means import Means
from llava_next_video.media.sampling import Sampling
from llava_next_video.media.source import Opened, Source, Still, folder_of, opened
from llava_next_video.media.stills import encoded_picture, frames_in, read_array, read_still, read_stills
from llava_next_video.media.video import check_video, read_video

# Frame folders of the original's training data were cut at this rate.
# Source: LLaVA-NeXT, `llava/train/train.py`, the `shareVideoGPTV` branch.
DEFAULT_FOLDER_RATE = 2.0


def read(
    source: Source,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008
    *,
    frames_per_second: float | int | None = None,
    policy: FetchPolicy = FetchPolicy(),  # noqa: B008
) -> Clip | Picture:
    """The source as what it is: the sampled frames of a clip, or a picture.

    The content decides, whatever the source is called. It is opened, fetched and hashed once, so it may be
    a stream that can be read a single time. Arguments and errors are those of `read_clip`.
    """
    if isinstance(source, Image.Image) or (isinstance(source, np.ndarray) and source.ndim != 4):
        return read_image(source, limits)
    frames = _single_frames(source, limits, policy)
    if frames is not None or isinstance(source, np.ndarray):
        return read_clip(source, sampling, limits, frames_per_second=frames_per_second, policy=policy)
    with opened(cast(Still, source), limits, policy) as encoded:
        image = open_picture(encoded.file, encoded.name, limits)
        if image is not None and not is_animated(image):
            return encoded_picture(image, encoded)
        return _encoded_clip(encoded, image, sampling, limits, frames_per_second, Means())


def read_clip(
    source: Source,
    sampling: Sampling = Sampling(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    *,
    frames_per_second: float | int | None = None,
    policy: FetchPolicy = FetchPolicy(),  # noqa: B008
    means: Means = Means(),  # noqa: B008
) -> Clip:
    """The sampled frames of a clip, and when they are shown.

    A clip is a video or animated picture (path, bytes, file object, URL), a folder of frames, an array
    (frames, height, width, 3), or a list of pictures. `frames_per_second` is the time base of those that
    have none of their own (folders, arrays, lists: 2 if not given).

    Raises: MediaError if it cannot be read; MediaLimitError beyond the limits; ConfigError for a rate that
    is not positive, or given for a source that has its own.
    """
    rate = DEFAULT_FOLDER_RATE if frames_per_second is None else frames_per_second
    if not 0 < rate < float("inf"):
        raise ConfigError(f"frames_per_second={rate} was given; expected a number above 0")
    if isinstance(source, np.ndarray):
        return read_array(source, sampling, limits, rate)
    if isinstance(source, Image.Image):
        raise MediaError("one picture was given where a clip was expected; give a list of pictures")
    single = _single_frames(source, limits, policy)
    if single is not None:
        return read_stills(single.frames, single.name, sampling, limits, policy, rate)
    with opened(cast(Still, source), limits, policy) as encoded:
        image = open_picture(encoded.file, encoded.name, limits)
        if image is not None and not is_animated(image):
            raise MediaError(f"{encoded.name}: a still picture ({image.format}), not a clip; use read_image")
        return _encoded_clip(encoded, image, sampling, limits, frames_per_second, means)


def read_image(
    source: Source,
    limits: Limits = Limits(),  # noqa: B008
    *,
    policy: FetchPolicy = FetchPolicy(),  # noqa: B008
) -> Picture:
    """One picture, upright and in RGB; of an animated one the first frame.

    Raises: MediaError if it cannot be read; MediaLimitError beyond the limits.
    """
    if isinstance(source, (list, tuple)):
        raise MediaError(f"a list of {len(source)} was given where one picture was expected")
    return read_still(cast(Still, source), limits, policy)


def is_clip(
    source: Source,
    limits: Limits = Limits(),  # noqa: B008
    *,
    policy: FetchPolicy = FetchPolicy(),  # noqa: B008
) -> bool:
    """Whether the source moves; told by its content, whatever it is called.

    A URL is fetched for it, and a stream that cannot be rewound is used up: `read` looks only once.

    Raises: MediaError if it is neither a clip nor a picture.
    """
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    if isinstance(source, Image.Image):
        return False
    if _single_frames(source, limits, policy) is not None:
        return True
    with opened(cast(Still, source), limits, policy) as encoded:
        image = open_picture(encoded.file, encoded.name, limits)
        if image is not None:
            return is_animated(image)
        check_video(encoded, limits)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class _SingleFrames:
    """A clip that comes as one picture a frame."""

    frames: Sequence[Still]
    name: str


def _single_frames(source: Source, limits: Limits, policy: FetchPolicy) -> _SingleFrames | None:
    """The pictures of a list, a folder or a data URL of frames; None for any other source."""
    if isinstance(source, (list, tuple)):
        return _SingleFrames(frames=source, name=f"list of {len(source)} frames")
    folder = folder_of(source)
    if folder is not None:
        return _SingleFrames(frames=frames_in(folder), name=os.fspath(folder))
    inline = data_url_frames(source, limits, policy) if isinstance(source, str) else None
    return None if inline is None else _SingleFrames(frames=inline, name="data URL")


def _encoded_clip(
    encoded: Opened,
    image: Image.Image | None,
    sampling: Sampling,
    limits: Limits,
    frames_per_second: float | int | None,
    means: Means,
) -> Clip:
    """A video file, or the animated `image` that was found in it."""
    if frames_per_second is not None:
        raise ConfigError(
            f"{encoded.name}: frames_per_second={frames_per_second} was given, but this clip has its own "
            "time stamps; it is for folders, arrays and lists of frames"
        )
    if image is not None:
        return read_animation(image, encoded.key, encoded.name, sampling, limits)
    clip, _ = read_video(encoded, sampling, limits, means)
    return clip
