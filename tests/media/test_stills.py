"""Folders, lists and arrays of frames are clips too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_next_video.errors import ConfigError, MediaError, MediaLimitError
from llava_next_video.media import Limits, Sampling, read_clip

GREYS = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.full((1, 6, 8, 3), 20, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, frame in enumerate(GREYS):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "labels.txt").write_text("no picture either")
    return tmp_path


def test_a_folder_is_read_in_natural_order_at_two_a_second(folder: Path) -> None:
    clip = read_clip(folder, Sampling(frames=12))
    assert (clip.frames == GREYS).all()  # frame2 before frame10
    assert clip.times_s == tuple(number / 2 for number in range(12))
    assert clip.duration_s == 6.0
    assert clip.frames_per_second == 2.0


def test_the_time_base_of_frames_may_be_given(folder: Path) -> None:
    clip = read_clip(folder, Sampling(how="fps", per_second=1.0), frames_per_second=4.0)
    assert clip.indices == (0, 4, 8)
    assert clip.times_s == (0.0, 1.0, 2.0)


def test_a_rate_for_a_clip_with_its_own_is_refused(film) -> None:
    with pytest.raises(ConfigError, match="its own time stamps"):
        read_clip(film(), frames_per_second=10.0)
    with pytest.raises(ConfigError, match="above 0"):
        read_clip(GREYS, frames_per_second=0.0)


def test_arrays_and_lists_hold_the_same_frames() -> None:
    sampling = Sampling(frames=4)
    by_array = read_clip(GREYS, sampling)
    by_list = read_clip(list(GREYS), sampling)
    by_pictures = read_clip([Image.fromarray(frame) for frame in GREYS], sampling)
    assert by_array.indices == (0, 3, 6, 9)
    for clip in (by_array, by_list, by_pictures):
        assert (clip.frames == GREYS[[0, 3, 6, 9]]).all()
        assert clip.frame_count == 12


def test_the_key_is_of_all_frames_and_their_shape(folder: Path) -> None:
    before = read_clip(folder, Sampling(frames=1)).key
    Image.fromarray(GREYS[0] + 9).save(folder / "frame11.png")
    assert read_clip(folder, Sampling(frames=1)).key != before
    assert read_clip(GREYS).key == read_clip(GREYS.copy(), Sampling(frames=2)).key
    assert read_clip(GREYS).key != read_clip(GREYS.reshape(12, 8, 6, 3)).key


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 6, 8), np.uint8),
        np.zeros((2, 6, 8, 3), np.float32),
        np.zeros((6, 8, 3), np.uint8),
        np.zeros((0, 6, 8, 3), np.uint8),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(array: np.ndarray) -> None:
    with pytest.raises(MediaError, match="expected uint8 with shape"):
        read_clip(array)


def test_frames_that_do_not_go_together_are_refused(folder: Path) -> None:
    with pytest.raises(MediaError, match="at least one"):
        read_clip([])
    Image.new("RGB", (9, 9)).save(folder / "frame5.png")
    with pytest.raises(MediaError, match="frame 5 is 9x9 and the first is 8x6"):
        read_clip(folder, Sampling(frames=12))
    with pytest.raises(MediaLimitError, match="12 frames, and the limit is 11"):
        read_clip(GREYS, limits=Limits(frames=11))
    with pytest.raises(MediaLimitError, match="the limit is 5 s"):
        read_clip(GREYS, limits=Limits(duration_s=5.0))
