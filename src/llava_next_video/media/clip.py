"""A clip and a picture as the rest of the house gets them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from llava_next_video.errors import MediaLimitError
from llava_next_video.media.clock import Clock
from llava_next_video.media.limits import Limits
from llava_next_video.media.means import Room, new_room
from llava_next_video.media.sampling import How, Sampling, moments
from llava_next_video.size import Size

Frames = UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """The frames that were looked at, and where in the clip they stand.

    `indices` count the frames a straight decode gives, from 0. `times_s` are seconds after the first
    frame, from the stream's own time stamps. `frame_count` is how many frames decode (not what the
    header says). A file that was cut off gives the frames that are there: `claimed_s` is then the
    duration that its container promises, and None for a clip that is whole. `key` is the SHA-256 of the
    source, the same for the same bytes under any name.
    """

    frames: Frames = field(repr=False)
    times_s: tuple[float, ...] = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)
    sampling: Sampling
    duration_s: float | None
    frame_count: int
    frames_per_second: float | int | None
    size: Size
    key: bytes = field(repr=False)
    name: str
    claimed_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """One still picture, upright, in RGB; `key` is the SHA-256 of its source."""

    image: Image.Image = field(repr=False)
    key: bytes = field(repr=False)
    name: str
    size: Size


def thinned(clip: Clip, frames: int) -> Clip:
    """The clip with at most so many frames, chosen from those that it has as its sampling chose those."""
    if len(clip.frames) <= frames:
        return clip
    how: How = "uniform" if clip.sampling.how == "uniform" else "linspace"
    kept = moments(len(clip.frames), Sampling(how=how, frames=frames), None)
    return replace(
        clip,
        frames=clip.frames[kept],
        times_s=tuple(clip.times_s[place] for place in kept),
        indices=tuple(clip.indices[place] for place in kept),
        sampling=replace(clip.sampling, frames=frames),
    )


def empty_frames(count: int, size: Size, name: str, limits: Limits, room: Room = new_room) -> Frames:
    """Room for so many RGB frames of this size.

    Raises: MediaLimitError if they need more bytes than the limits allow.
    """
    needed = count * size.area * 3
    if needed > limits.kept_bytes:
        raise MediaLimitError(
            f"{name}: {count} frames of {size.width}x{size.height} need {needed} bytes, and the limit is "
            f"{limits.kept_bytes}; ask for fewer frames"
        )
    return room((count, size.height, size.width, 3))


def clip_of(
    frames: Frames, clock: Clock, indices: Sequence[int], sampling: Sampling, key: bytes, name: str
) -> Clip:
    """The record of frames that were read."""
    return Clip(
        frames=frames,
        times_s=tuple(clock.times_s[list(indices)].tolist()),
        indices=tuple(indices),
        sampling=sampling,
        duration_s=clock.duration_s,
        frame_count=len(clock.times_s),
        frames_per_second=clock.frames_per_second,
        size=Size(*frames.shape[1:3]),
        key=key,
        name=name,
    )
