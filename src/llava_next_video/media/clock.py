"""When each frame of a clip is shown."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, Int64

from llava_next_video.errors import MediaLimitError
from llava_next_video.media.limits import Limits
from llava_next_video.media.sampling import Sampling, moments, moments_in_time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clock:
    """Seconds of every frame after the first one; `steady` if they follow one rate."""

    times_s: Float64[np.ndarray, " frames"]
    frames_per_second: float | int | None
    duration_s: float | None
    steady: bool

    def choose(self, sampling: Sampling) -> list[int]:
        """The frames to look at: by count where the rate is steady, by time where it varies."""
        if self.steady or self.frames_per_second is None:
            return moments(len(self.times_s), sampling, self.frames_per_second)
        return moments_in_time(self.times_s.tolist(), sampling)

    def check(self, name: str, limits: Limits) -> None:
        """Raises: MediaLimitError if the clip lasts longer than the limits allow."""
        if self.duration_s is not None and self.duration_s > limits.duration_s:
            raise MediaLimitError(
                f"{name}: it lasts {self.duration_s:.0f} s, and the limit is {limits.duration_s:.0f} s"
            )


def steady_clock(frame_count: int, frames_per_second: float | int) -> Clock:
    """A clock for frames without times of their own.

    >>> steady_clock(3, 2.0).times_s.tolist()
    [0.0, 0.5, 1.0]
    """
    return Clock(
        times_s=np.arange(frame_count) / frames_per_second,
        frames_per_second=frames_per_second,
        duration_s=frame_count / frames_per_second,
        steady=True,
    )


def clock_of(
    pts: Int64[np.ndarray, " frames"], time_base: Fraction, last_duration: int, header_rate: Fraction | None
) -> Clock:
    """The clock that time stamps in display order tell.

    The header's rate is believed only where the stamps agree with it: it is then the exact number that
    rounded stamps (Matroska counts whole milliseconds) hide.

    >>> clock_of(np.array([0, 33, 67, 100]), Fraction(1, 1000), 33, Fraction(30)).frames_per_second
    30.0
    """
    tick = float(time_base)
    # A stamp that goes back in time (broken muxers) is taken as the latest time so far.
    times = np.maximum.accumulate((pts - pts[0]).astype(np.float64)) * tick
    header = float(header_rate) if header_rate else None
    span = float(times[-1])
    if span == 0:
        duration = last_duration * tick or (1 / header if header else None)
        return Clock(times_s=times, frames_per_second=header, duration_s=duration, steady=True)
    gaps = np.diff(times)
    steady = float(gaps.max() - gaps.min()) <= max(2.5 * tick, 0.1 * float(np.median(gaps)))
    rate = len(gaps) / span
    if steady and header and abs(rate - header) <= header * (2 * tick / span + 1e-3):
        rate = header
    if steady:
        return Clock(times_s=times, frames_per_second=rate, duration_s=len(times) / rate, steady=True)
    duration = span + (last_duration * tick or float(np.median(gaps)))
    return Clock(times_s=times, frames_per_second=len(times) / duration, duration_s=duration, steady=False)
