"""Which moments are looked at, against the formulas of the two originals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_next_video.errors import ConfigError
from llava_next_video.media import Sampling, moments
from llava_next_video.media.sampling import moments_in_time

COUNTS = st.integers(1, 100_000)
WANTED = st.integers(1, 512)
HOW = st.sampled_from(["uniform", "linspace", "fps"])


@given(total=st.integers(1, 2999), wanted=st.integers(4, 32))
def test_uniform_is_the_seed_pages_formula(total: int, wanted: int) -> None:
    if total >= wanted:
        expected = np.arange(wanted) * total // wanted
        assert moments(total, Sampling(frames=wanted), None) == expected.tolist()


def test_uniform_of_the_seed_pages_call() -> None:
    # np.arange(0, total_frames, total_frames / 8).astype(int) with 116 frames
    assert moments(116, Sampling(), 30.0) == np.arange(0, 116, 116 / 8).astype(int).tolist()


@given(total=COUNTS, wanted=WANTED)
def test_linspace_is_the_originals_formula(total: int, wanted: int) -> None:
    found = moments(total, Sampling(how="linspace", frames=wanted), None)
    assert found == np.linspace(0, total - 1, min(wanted, total), dtype=int).tolist()


def test_a_clip_shorter_than_wanted_gives_each_frame_once() -> None:
    for how in ("uniform", "linspace"):
        assert moments(3, Sampling(how=how, frames=8), None) == [0, 1, 2]


def test_fps_steps_by_whole_frames_as_the_original_does() -> None:
    # round(29.97 / 1) = 30: frames 0, 30, 60 of 90
    assert moments(90, Sampling(how="fps", per_second=1), 29.97) == [0, 30, 60]


def test_fps_above_its_cap_is_spread_over_the_whole_clip() -> None:
    # 60 candidates at one a second, 8 allowed: linspace(0, 1799, 8)
    found = moments(1800, Sampling(how="fps", per_second=1, frames=8), 30.0)
    assert found == np.linspace(0, 1799, 8, dtype=int).tolist()


def test_fps_above_the_clips_own_rate_gives_each_frame_once() -> None:
    assert moments(4, Sampling(how="fps", per_second=100, frames=8), 1.0) == [0, 1, 2, 3]


@given(total=COUNTS, wanted=WANTED, how=HOW, rate=st.floats(0.5, 240), per_second=st.floats(0.01, 60))
def test_moments_rise_and_stay_inside(
    total: int, wanted: int, how: str, rate: float, per_second: float
) -> None:
    sampling = Sampling(how=how, frames=wanted, per_second=per_second if how == "fps" else None)
    found = moments(total, sampling, rate)
    assert 1 <= len(found) <= wanted
    assert found == sorted(set(found))
    assert found[0] >= 0
    assert found[-1] < total


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=200), WANTED, st.floats(0.01, 60))
def test_moments_in_time_rise_and_stay_inside(gaps: list[float], wanted: int, per_second: float) -> None:
    times = np.cumsum(gaps).tolist()
    found = moments_in_time(times, Sampling(how="fps", frames=wanted, per_second=per_second))
    assert 1 <= len(found) <= wanted
    assert found == sorted(set(found))
    assert found[0] >= 0
    assert found[-1] < len(times)


def test_moments_in_time_follow_the_stamps_where_the_rate_varies() -> None:
    # Ten frames in the first second, then one a second: one frame a second is not every n-th frame.
    times = [i / 10 for i in range(10)] + [1.0, 2.0, 3.0]
    assert moments_in_time(times, Sampling(how="fps", per_second=1)) == [0, 10, 11, 12]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"frames": 0}, "0 frames"),
        ({"frames": -3}, "-3 frames"),
        ({"how": "fps"}, "per_second above 0"),
        ({"how": "fps", "per_second": 0}, "per_second above 0"),
        ({"how": "fps", "per_second": float("nan")}, "per_second above 0"),
        ({"per_second": 1.0}, "only used with how='fps'"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_a_sentence(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Sampling(**settings)


def test_fps_of_frames_without_a_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="give frames_per_second"):
        moments(10, Sampling(how="fps", per_second=1), None)
