"""What cannot be read says so in a sentence; what is damaged gives its whole frames and no others."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media import Limits, Sampling, is_clip, read_clip, read_image

ALL = Sampling(frames=1000)
FIRST_HEAVY = {"container_options": {"movflags": "faststart"}, "size": (96, 128)}
STREAMED = {
    "mp4": FIRST_HEAVY,
    "mkv": {"suffix": "mkv"},
    "ts": {"suffix": "ts"},
    "webm": {"suffix": "webm", "encoder": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "avi": {"suffix": "avi", "encoder": "mpeg4", "size": (96, 128)},
    "hevc": {
        "encoder": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "log-level=none"},
        **FIRST_HEAVY,
    },
}


def true_frames(clip, frames: list[np.ndarray]) -> bool:
    """Every frame of the clip is one of the film's, in the film's order."""
    left = iter(frames)
    return all(any((shown == frame).all() for frame in left) for shown in clip.frames)


@pytest.mark.parametrize("kind", STREAMED)
@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_a_cut_off_file_gives_the_frames_that_are_there(kind: str, share: float, film, straight) -> None:
    path = film(**STREAMED[kind])
    data = path.read_bytes()
    clip = read_clip(data[: int(len(data) * share)], ALL)
    assert clip.frame_count == len(clip.frames)
    assert 0.2 * share * 60 < clip.frame_count <= 60
    assert true_frames(clip, straight(path))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "webm", "hevc", "mp4 with sound", "mkv with sound"])
def test_a_cut_off_clip_says_how_long_it_should_be(kind: str, film) -> None:
    stream, _, sound = kind.partition(" with ")
    data = film(**STREAMED[stream], sound_s=7.2 if sound else 0.0).read_bytes()
    whole, half = read_clip(data), read_clip(data[: len(data) // 2])
    assert whole.claimed_s is None
    assert whole.duration_s == pytest.approx(2.4)  # 60 frames, 25 a second
    assert half.claimed_s == pytest.approx(2.4)
    assert 0.5 < half.duration_s < 1.9


def test_a_last_frame_that_is_shown_for_long_is_no_cut(film) -> None:
    ticks = tuple(40 * number + 3000 * (number // 50) for number in range(60))
    for suffix in ("mp4", "mkv"):
        assert read_clip(film(suffix, ticks=ticks)).claimed_s is None


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi"])  # VP9 decodes noise without a word
def test_a_hole_in_the_file_costs_its_group_and_shows_no_grey_frame(kind: str, film, straight) -> None:
    path = film(**STREAMED[kind])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 15] = bytes(len(data) // 15)
    clip = read_clip(bytes(data), ALL)
    assert 30 <= clip.frame_count == len(clip.frames) < 60
    assert true_frames(clip, straight(path))


@pytest.mark.parametrize("kind", STREAMED)
def test_random_damage_never_hangs_or_crashes(kind: str, film) -> None:
    data = film(**STREAMED[kind]).read_bytes()

    @settings(max_examples=8, deadline=None, database=None)
    @given(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=30),
        st.integers(1, len(data)),
    )
    def check(flips: list[tuple[int, int]], length: int) -> None:
        broken = bytearray(data)
        for place, value in flips:
            broken[place] = value
        try:
            clip = read_clip(bytes(broken[:length]), Sampling(frames=4))
        except MediaError:
            return
        assert 1 <= len(clip.frames) == len(clip.indices) <= clip.frame_count

    check()


def sentence(source, **settings) -> str:
    with pytest.raises(MediaError) as caught:
        read_clip(source, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_file_is_named() -> None:
    assert sentence("/nowhere/clip.mp4") == "/nowhere/clip.mp4: no such file or directory"


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert sentence(tmp_path / "empty.mp4").endswith("empty.mp4: the file is empty (0 bytes)")
    assert sentence(b"") == "0 bytes: the file is empty (0 bytes)"


def test_text_that_is_called_mp4_is_no_video_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("What we saw today: a cat, twice.\n" * 50)
    assert "notes.mp4: not a video file" in sentence(path)
    with pytest.raises(MediaError, match="not a video file"):
        is_clip(path)


def test_a_playlist_that_is_called_mp4_opens_no_other_file(film, tmp_path: Path) -> None:
    target = film()
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {target}\n",
    ):
        (tmp_path / "list.mp4").write_text(text)
        assert "not a video file" in sentence(tmp_path / "list.mp4")


def test_a_folder_without_frames_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no pictures here")
    assert "a folder without frames" in sentence(tmp_path)


def test_a_folder_of_clips_is_told_from_one_of_frames(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.txt"):
        (tmp_path / name).write_bytes(b"anything")
    told = sentence(tmp_path)
    assert "this one holds clips (2, such as a.MKV); give the clips themselves" in told
    assert f"`llava-next-video caption {tmp_path} --output captions`" in told


def test_an_mp4_without_its_index_is_said_to_be_incomplete(film) -> None:
    data = film().read_bytes()  # its index stands at the end
    assert "without a readable index (moov)" in sentence(data[: len(data) // 2])


def test_a_sound_file_says_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert sentence(path) == f"{path}: no video stream; found audio (aac)"


def test_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "album.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        container.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        container.mux(cover.encode(None))
    assert sentence(path) == f"{path}: no video stream; found audio (aac), cover picture (mjpeg)"


def test_a_still_picture_is_no_clip_and_says_which_function_reads_it(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "still.png")
    assert "use read_image" in sentence(tmp_path / "still.png")


def test_a_pipe_is_refused_and_does_not_wait_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in sentence(tmp_path / "pipe.mp4")


def test_a_text_file_object_and_other_things_are_refused(film) -> None:
    with film().open(encoding="latin-1") as text:
        assert "open it in mode 'rb'" in sentence(text)
    assert "one picture was given" in sentence(__import__("PIL.Image").Image.new("RGB", (4, 4)))


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(bytes=1000), "and the limit is 1000"),
        (Limits(pixels=64 * 96 - 1), "96x64 pixels, and the limit is 6143"),
        (Limits(frames=59), "more than 59 frames"),
        (Limits(duration_s=2.0), "the limit is 2 s"),
        (Limits(kept_bytes=8 * 64 * 96 * 3 - 1), "ask for fewer frames"),
    ],
)
def test_limits_refuse_what_is_larger(limits: Limits, says: str, film) -> None:
    for suffix in ("mp4", "ts"):  # counted by packets, and by decoding
        with pytest.raises(MediaLimitError, match=says):
            read_clip(film(suffix), limits=limits)


def test_a_frame_that_grows_half_way_is_still_limited(tmp_path: Path, film) -> None:
    small, large = film("ts", count=12), film("ts", count=12, size=(320, 480))
    joined = small.read_bytes() + large.read_bytes()
    clip = read_clip(joined, ALL, Limits(pixels=100_000))
    assert clip.size == (64, 96)
    assert clip.frame_count < 24
    grown = read_clip(joined, ALL)
    assert 12 < grown.frame_count <= 24  # the join may cost a few
    assert grown.size == (64, 96)


def test_nothing_stays_open(film, tmp_path: Path) -> None:
    path = film()
    (tmp_path / "bad.mp4").write_bytes(path.read_bytes()[:2000])
    read_clip(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_clip(path)
        read_clip(film("ts"))
        sentence(tmp_path / "bad.mp4")
        with pytest.raises(MediaError):
            read_image(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_broken_clip_prints_nothing(film, tmp_path: Path) -> None:
    data = bytearray(film("ts").read_bytes())
    data[20000:24000] = bytes(4000)
    (tmp_path / "broken.ts").write_bytes(data)
    program = "import sys; from llava_next_video.media import read_clip; read_clip(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "broken.ts")], capture_output=True, check=True
    )
    assert done.stdout == done.stderr == b""
