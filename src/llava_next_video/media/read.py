"""Read any source, as a clip or as a picture."""

import os
from typing import cast

import numpy as np
from PIL import Image

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media.clip import Clip, Picture
from llava_next_video.media.fetch import FetchPolicy, data_url_frames
from llava_next_video.media.image import is_animated, open_picture, read_animation
from llava_next_video.media.limits import Limits
from llava_next_video.media.sampling import Sampling
from llava_next_video.media.source import Source, Still, folder_of, opened
from llava_next_video.media.stills import frames_in, read_array, read_still, read_stills
from llava_next_video.media.video import check_video, read_video

# Frame folders of the original's training data were cut at this rate.
# Source: LLaVA-NeXT, `llava/train/train.py`, the `shareVideoGPTV` branch.
DEFAULT_FOLDER_RATE = 2.0


def read_clip(
    source: Source,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    limits: Limits = Limits(),  # noqa: B008
    *,
    frames_per_second: float | int | None = None,
    policy: FetchPolicy = FetchPolicy(),  # noqa: B008
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
    if isinstance(source, (list, tuple)):
        return read_stills(source, f"list of {len(source)} frames", sampling, limits, policy, rate)
    folder = folder_of(source)
    if folder is not None:
        return read_stills(frames_in(folder), os.fspath(folder), sampling, limits, policy, rate)
    inline = data_url_frames(source, limits, policy) if isinstance(source, str) else None
    if inline is not None:
        return read_stills(inline, "data URL", sampling, limits, policy, rate)
    with opened(cast(Still, source), limits, policy) as encoded:
        if frames_per_second is not None:
            raise ConfigError(
                f"{encoded.name}: frames_per_second={frames_per_second} was given, but this clip has its own "
                "time stamps; it is for folders, arrays and lists of frames"
            )
        image = open_picture(encoded.file, encoded.name, limits)
        if image is None:
            clip, _ = read_video(encoded, sampling, limits)
            return clip
        if not is_animated(image):
            raise MediaError(f"{encoded.name}: a still picture ({image.format}), not a clip; use read_image")
        return read_animation(image, encoded.key, encoded.name, sampling, limits)


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
    """Whether the source moves; told by its content, whatever it is called. A URL is fetched for it.

    Raises: MediaError if it is neither a clip nor a picture.
    """
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    if isinstance(source, Image.Image):
        return False
    if isinstance(source, (list, tuple)) or folder_of(source) is not None:
        return True
    if isinstance(source, str) and data_url_frames(source, limits, policy) is not None:
        return True
    with opened(cast(Still, source), limits, policy) as encoded:
        image = open_picture(encoded.file, encoded.name, limits)
        if image is not None:
            return is_animated(image)
        check_video(encoded, limits)
        return True
