"""Frames equal those of a straight decode, whatever the codec, container and moments."""

import hashlib
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_next_video.media import Limits, Means, Sampling, read_clip, write_clip
from llava_next_video.media.fetch import FetchPolicy
from llava_next_video.media.source import opened
from llava_next_video.media.video import read_video

Straight = Callable[[Path], list[np.ndarray]]

OPEN_GOP = "open-gop=1:bframes=3:b-pyramid=2:keyint=12:min-keyint=12:scenecut=0"
FILMS = {
    "h264": {},
    "h264 in matroska": {"suffix": "mkv"},
    "h264, open groups": {"options": {"x264-params": OPEN_GOP}},
    "h264, open groups, strict pyramid": {
        "options": {"x264-params": "open-gop=1:bframes=5:b-pyramid=1:keyint=15:ref=4"}
    },
    "h264, 16 b-frames": {"gop": 40, "options": {"x264-params": "bframes=16:b-adapt=0:b-pyramid=2:ref=6"}},
    "h264, gradual intra refresh": {
        "options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"},
    },
    "h264, no b-frames": {"options": {"preset": "ultrafast"}},
    "h264, interlaced": {"options": {"x264-params": "tff=1:bframes=3"}},
    "h264, slices": {"options": {"x264-params": "slices=4:bframes=3"}},
    "h264, 10 bits": {"pixels": "yuv420p10le"},
    "h264, 4:4:4": {"pixels": "yuv444p"},
    "h264, grey": {"pixels": "gray"},
    "h264, rgb": {"encoder": "libx264rgb", "pixels": "rgb24"},
    "h264, one group": {"gop": 250},
    "h264, key frames only": {"gop": 1},
    "h264 in avi": {"suffix": "avi"},
    "h264 in a transport stream": {"suffix": "ts"},
    "hevc, open groups": {
        "encoder": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=15:bframes=4"},
    },
    "hevc, temporal layers": {
        "encoder": "libx265",
        "options": {
            "preset": "ultrafast",
            "x265-params": "log-level=none:keyint=30:bframes=4:b-pyramid=1:temporal-layers=3",
        },
    },
    "mpeg4 with b-frames": {"encoder": "mpeg4", "options": {"bf": "2"}},
    "mpeg4 with b-frames in avi": {"suffix": "avi", "encoder": "mpeg4", "options": {"bf": "2"}},
    "vp9, hidden frames, no frame count": {
        "suffix": "webm",
        "encoder": "libvpx-vp9",
        "options": {"lag-in-frames": "16", "auto-alt-ref": "1", "deadline": "good", "cpu-used": "8"},
    },
    "vp8, hidden packets": {
        "suffix": "webm",
        "encoder": "libvpx",
        "options": {"lag-in-frames": "16", "auto-alt-ref": "1", "deadline": "good", "cpu-used": "8"},
    },
    "mpeg2 program stream": {"suffix": "mpg", "encoder": "mpeg2video", "options": {"bf": "2"}},
}
"""Keyword arguments of the `film` fixture."""


def equal(clip, frames: list[np.ndarray]) -> bool:
    return all((shown == frames[index]).all() for shown, index in zip(clip.frames, clip.indices, strict=True))


@pytest.mark.parametrize("kind", FILMS)
def test_any_sampling_is_pixel_equal_to_a_straight_decode(kind: str, film, straight: Straight) -> None:
    path = film(**FILMS[kind])
    frames = straight(path)

    @settings(max_examples=6, deadline=None, database=None)
    @given(
        st.sampled_from(["uniform", "linspace", "fps"]),
        st.integers(1, 60),
        st.sampled_from([1, 3, 7, 25]),
        st.booleans(),
    )
    def check(how: str, wanted: int, per_second: int, near_keys: bool) -> None:
        rate = per_second if how == "fps" else None
        sampling = Sampling(how=how, frames=wanted, per_second=rate, near_keys=near_keys)
        clip = read_clip(path, sampling)
        assert clip.frame_count == len(frames) == 60
        assert equal(clip, frames)
        assert np.allclose(clip.times_s, np.array(clip.indices) / 25, atol=0.0011)
        assert clip.frames_per_second == pytest.approx(25.0)
        assert clip.duration_s == pytest.approx(60 / 25)
        assert clip.claimed_s is None

    check()


def work_of(path: Path, sampling: Sampling) -> tuple[int, bool]:
    with opened(path, Limits(), FetchPolicy()) as source:
        _, work = read_video(source, sampling, Limits())
    return work.frames_decoded, work.straight


def test_only_groups_with_wanted_frames_are_decoded(film) -> None:
    # Groups of 10 without B-frames; frames 0, 15, 30 and 45 of 60 stand 0, 5, 0 and 5 after a key frame.
    path = film(gop=10, options={"preset": "ultrafast", "sc_threshold": "0"})
    assert work_of(path, Sampling(frames=4)) == (1 + 6 + 1 + 6, False)


def test_near_key_frames_only_those_are_decoded_unless_they_are_far(film) -> None:
    # Groups of 10 as above: 15 and 45 are five frames after a key frame and fifteen from the next moments.
    path = film(gop=10, options={"preset": "ultrafast", "sc_threshold": "0"})
    assert work_of(path, Sampling(frames=4, near_keys=True)) == (4, False)
    assert read_clip(path, Sampling(frames=4, near_keys=True)).indices == (0, 10, 30, 40)
    # With one key frame, moments eight frames apart stay: the first that could move is eight away, not four.
    path = film(gop=250, options={"preset": "ultrafast", "sc_threshold": "0"})
    exact, near = (read_clip(path, Sampling(frames=7, near_keys=near)).indices for near in (False, True))
    assert near == exact


def test_frames_that_nothing_leans_on_are_left_out(film) -> None:
    # One group in the pattern P b b b: to frame 56 lead the key frame, 14 P and 0 of 42 b.
    path = film(
        gop=60, options={"x264-params": "bframes=3:b-adapt=0:b-pyramid=0:scenecut=0:keyint=60:min-keyint=60"}
    )
    frames, is_straight = work_of(path, Sampling(how="linspace", frames=1))
    assert (frames, is_straight) == (1, False)
    frames, is_straight = work_of(path, Sampling(how="fps", per_second=25 / 56, frames=2))
    assert (frames, is_straight) == (15, False)


def test_no_frame_after_the_last_wanted_one_is_decoded(film) -> None:
    path = film(gop=250, options={"preset": "ultrafast", "sc_threshold": "0"})
    assert work_of(path, Sampling(frames=2)) == (31, False)


def test_the_source_may_be_a_path_bytes_or_a_file(film, straight: Straight) -> None:
    path = film()
    data = path.read_bytes()
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        file.seek(100)
        clips = [
            read_clip(source)
            for source in (path, str(path), data, io.BytesIO(data), file, raw, path.as_uri())
        ]
        assert not file.closed
    assert all(equal(clip, straight(path)) for clip in clips)
    assert {clip.key for clip in clips} == {hashlib.sha256(data).digest()}


def test_the_frames_stand_in_one_c_contiguous_array(film) -> None:
    clip = read_clip(film())
    assert clip.frames.flags.c_contiguous
    assert clip.frames.dtype == np.uint8
    assert clip.frames.shape == (8, *clip.size, 3) == (8, 64, 96, 3)


def test_variable_frame_rate_is_told_by_time_stamps(film, straight: Straight) -> None:
    # Ten frames in the first second, then one a second.
    ticks = (*range(0, 1000, 100), *range(1000, 6000, 1000))
    path = film(count=15, ticks=ticks)
    clip = read_clip(path, Sampling(frames=15))
    assert clip.times_s == pytest.approx([tick / 1000 for tick in ticks])
    by_second = read_clip(path, Sampling(how="fps", per_second=1))
    assert by_second.indices == (0, 10, 11, 12, 13, 14)
    assert by_second.times_s == pytest.approx((0, 1, 2, 3, 4, 5))
    assert equal(by_second, straight(path))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_stream_that_starts_after_zero_is_timed_from_its_first_frame(suffix: str, film, straight) -> None:
    path = film(suffix, count=20, ticks=tuple(range(3000, 3800, 40)))
    clip = read_clip(path, Sampling(frames=20))
    assert equal(clip, straight(path))
    assert clip.times_s == pytest.approx([0.04 * number for number in range(20)], abs=0.0011)


def test_frames_that_an_edit_list_cuts_away_are_not_counted(film, straight: Straight) -> None:
    # Time stamps before zero make the muxer write an edit list that starts at zero.
    path = film(count=40, gop=12, ticks=tuple(range(-400, 1200, 40)))
    frames = straight(path)
    clip = read_clip(path, Sampling(frames=40))
    assert clip.frame_count == len(frames)
    assert equal(clip, frames)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_phone_clip_is_turned_as_its_matrix_says(turn: int, tmp_path: Path) -> None:
    frames = np.zeros((3, 32, 64, 3), np.uint8)
    frames[:, :16, :32] = 255  # the top left quarter
    clip = read_clip(write_clip(tmp_path / "phone.mp4", frames, 10, rotation=turn, crf=5))
    expected = np.rot90(frames, -turn // 90, axes=(1, 2))
    assert clip.size == expected.shape[1:3]
    assert np.abs(clip.frames.astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "h264"), ("webm", "vp9"), ("avi", "mpeg4")])
def test_odd_sizes_keep_every_row_and_column(suffix: str, codec: str, tmp_path: Path) -> None:
    frames = np.full((5, 33, 47, 3), 128, np.uint8)
    frames[:, -1] = 255
    clip = read_clip(write_clip(tmp_path / f"odd.{suffix}", frames, 10, codec=codec, crf=4))
    assert clip.size == (33, 47)
    assert clip.frames[:, -1].mean() > clip.frames[:, 20].mean() + 40


def test_a_header_that_counts_too_many_frames_is_not_believed(film, straight: Straight) -> None:
    data = bytearray(film("avi", "mpeg4", options={"bf": "2"}).read_bytes())
    for field, at in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(field) + at
        assert int.from_bytes(data[place : place + 4], "little") == 60
        data[place : place + 4] = (61).to_bytes(4, "little")
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].frames == 61
    clip = read_clip(bytes(data), Sampling(how="linspace", frames=60))
    assert clip.frame_count == len(clip.frames) == 60


def test_many_threads_may_read_at_once(film, straight: Straight) -> None:
    paths = [film(), film("ts"), film("mkv"), film(gop=1)] * 4
    with ThreadPoolExecutor(8) as threads:
        clips = list(threads.map(read_clip, paths))
    assert all(equal(clip, straight(path)) for clip, path in zip(clips, paths, strict=True))


def test_a_long_plan_is_decoded_on_two_threads_to_the_same_pixels(
    film, straight: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Groups of 24 without B-frames: 16 of 480 frames lie 0, 6, 12 and 18 packets behind a key frame.
    path = film(count=480, gop=24, options={"preset": "ultrafast", "sc_threshold": "0"})
    threads: list[str] = []
    reads = os.pread

    def noted(descriptor: int, size: int, at: int) -> bytes:
        threads.append(threading.current_thread().name)
        return reads(descriptor, size, at)

    monkeypatch.setattr(os, "pread", noted)
    assert work_of(path, Sampling(frames=16)) == (4 * (1 + 7 + 13 + 19), False)
    assert any(name.startswith("decoder") for name in threads)
    for source in (path, path.read_bytes()):
        clip = read_clip(source, Sampling(frames=16))
        assert clip.indices == tuple(range(0, 480, 30))
        assert equal(clip, straight(path))


@pytest.mark.slow
def test_damage_that_the_second_thread_meets_is_not_shown(film, tmp_path: Path) -> None:
    path = film(count=480, gop=24, options={"preset": "ultrafast", "sc_threshold": "0"})
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        place = next(
            p.pos for p in packets if p.pts == packets[0].pts + 15 * (packets[30].pts - packets[0].pts)
        )
    data = bytearray(path.read_bytes())
    data[place + 8 : place + 200] = bytes(192)
    (tmp_path / "damaged.mp4").write_bytes(data)
    clip = read_clip(tmp_path / "damaged.mp4", Sampling(frames=16))
    whole = read_clip(path, Sampling(frames=480))
    assert clip.frame_count < 480
    assert all(any((frame == other).all() for other in whole.frames) for frame in clip.frames)


def test_with_one_thread_a_long_plan_gives_the_same_and_opens_the_file_once(
    film, straight: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(count=480, gop=24, options={"preset": "ultrafast", "sc_threshold": "0"})
    opens: list[str] = []
    really = av.open

    def noted(*given: object, **named: object) -> object:
        opens.append("probed" if named.get("stream_options") is None else "by header")
        return really(*given, **named)

    monkeypatch.setattr(av, "open", noted)
    clip = read_clip(path, Sampling(frames=16), means=Means(threads=1))
    assert opens == ["by header"]
    assert equal(clip, straight(path))
    opens.clear()
    read_clip(path, Sampling(frames=16))
    assert opens == ["by header"] * 2


@pytest.mark.parametrize("kind", ["h264", "h264, open groups, strict pyramid", "hevc, open groups"])
def test_no_frame_of_an_mp4_is_decoded_to_see_what_is_in_it(
    kind: str, film, straight: Straight, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(**FILMS[kind])
    frames, told = straight(path), list[bool]()
    really = av.open

    def noted(*given: object, **named: object) -> object:
        told.append(named.get("stream_options") is not None)
        return really(*given, **named)

    monkeypatch.setattr(av, "open", noted)
    assert equal(read_clip(path, Sampling(frames=7)), frames)
    assert told == [True]


def test_frames_go_where_the_reader_wants_them(film, straight: Straight) -> None:
    path, rooms = film(), list[np.ndarray]()

    def room(shape: tuple[int, int, int, int]) -> np.ndarray:
        rooms.append(np.empty(shape, np.uint8))
        return rooms[-1]

    clip = read_clip(path, Sampling(frames=5), means=Means(room=room))
    assert len(rooms) == 1
    assert clip.frames is rooms[0]
    assert equal(clip, straight(path))
