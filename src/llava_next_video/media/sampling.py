"""Which moments of a clip to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

import numpy as np

from llava_next_video.errors import ConfigError

How = Literal["uniform", "linspace", "fps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose frames: evenly (`uniform`, `linspace`) or so many a second (`fps`).

    `frames` is how many are wanted; for `fps` it is the most that are taken, and a clip with more
    candidates gets that many, spread from its first to its last frame. With `near_keys` a moment of a video
    file moves to the key frame next to it, which is several times quicker to decode, if that is nearer than
    half the way to the next moment; a file whose index cannot be used is read at the moments themselves.

    Raises: ConfigError for counts and rates that are not positive, or a rate that would be ignored.
    """

    how: How = "uniform"
    frames: int = 8
    per_second: float | int | None = None
    near_keys: bool = False

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise ConfigError(
                f"sampling how={self.how!r} was given; expected one of {', '.join(get_args(How))}"
            )
        if not _is_whole(self.frames) or self.frames < 1:
            raise ConfigError(
                f"sampling of {self.frames!r} frames was asked for; expected a whole number, at least 1"
            )
        if self.how == "fps":
            if self.per_second is None or not _is_rate(self.per_second):
                raise ConfigError(
                    f"sampling by fps needs per_second above 0, for instance 1.0; {self.per_second!r} was "
                    "given"
                )
        elif self.per_second is not None:
            raise ConfigError(
                f"per_second={self.per_second} is only used with how='fps', and how={self.how!r} was given"
            )


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_rate(value: object) -> bool:
    return isinstance(value, Real) and 0 < float(value) < float("inf")


def moments(frame_count: int, sampling: Sampling, frames_per_second: float | int | None) -> list[int]:
    """Indices of the frames to look at: rising, without repeats, inside the clip.

    A clip shorter than wanted gives each frame once. `frames_per_second` is read by `fps` only.

    >>> moments(10, Sampling(frames=4), None)
    [0, 2, 5, 7]
    >>> moments(10, Sampling(how="linspace", frames=4), None)
    [0, 3, 6, 9]
    >>> moments(90, Sampling(how="fps", per_second=1.0), 29.97)
    [0, 30, 60]

    Raises: ConfigError if `fps` is asked of frames without a rate.
    Source: transformers, `video_processing_utils.py`, `sample_frames` (`uniform`); LLaVA-NeXT,
    `playground/demo/video_demo.py`, `load_video` (`linspace`, and `fps` with its whole-frame step).
    """
    if frame_count < 1:
        raise ValueError(f"frame_count={frame_count}; a clip has at least one frame")
    wanted = min(sampling.frames, frame_count)
    if sampling.how == "uniform":
        return [moment * frame_count // wanted for moment in range(wanted)]
    if sampling.how == "fps":
        if frames_per_second is None:
            raise ConfigError("sampling by fps needs the clip's own rate; give frames_per_second")
        assert sampling.per_second is not None
        # A rate above the clip's own would make the step 0, on which the original stops.
        step = max(1, round(frames_per_second / sampling.per_second))
        candidates = range(0, frame_count, step)
        if len(candidates) <= sampling.frames:
            return list(candidates)
    return np.linspace(0, frame_count - 1, wanted, dtype=int).tolist()


def moved_to_keys(indices: Sequence[int], keys: Sequence[int]) -> list[int]:
    """The frames to look at, those near a key frame moved to it; rising and without repeats, as before.

    >>> moved_to_keys([0, 75, 150, 225], keys=[0, 60, 120, 180, 240])
    [0, 60, 120, 240]
    >>> moved_to_keys([0, 10, 20, 30], keys=[0, 25])
    [0, 10, 20, 30]
    """
    wanted, there = np.asarray(indices), np.asarray(keys)
    right = np.clip(np.searchsorted(there, wanted), 1, max(1, len(there) - 1))
    after = there[np.minimum(right, len(there) - 1)]
    before = there[right - 1]
    nearest = np.where(wanted - before <= after - wanted, before, after)
    apart = np.diff(wanted).min() if len(wanted) > 1 else np.inf
    return np.where(2 * abs(nearest - wanted) < apart, nearest, wanted).tolist()


def moments_in_time(times_s: Sequence[float], sampling: Sampling) -> list[int]:
    """Indices for a clip of variable frame rate: `fps` follows the time stamps, not a step.

    Each wanted second gets the frame nearest to it; the other ways count frames as usual.

    >>> moments_in_time([0.0, 0.1, 0.2, 1.1, 2.0, 2.9], Sampling(how="fps", per_second=1.0))
    [0, 3, 4, 5]
    """
    if sampling.how != "fps":
        return moments(len(times_s), sampling, None)
    assert sampling.per_second is not None
    times = np.asarray(times_s, dtype=np.float64)
    first, last = float(times[0]), float(times[-1])
    # The half step lets the frame nearest to the last wanted moment stand a little before it.
    count = int((last - first) * sampling.per_second + 0.5) + 1
    if count > sampling.frames:
        wanted = np.linspace(first, last, min(sampling.frames, len(times)))
    else:
        wanted = first + np.arange(count) / sampling.per_second
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return [0]
    nearer_left = wanted - times[right - 1] <= times[right] - wanted
    return np.unique(right - nearer_left).tolist()
