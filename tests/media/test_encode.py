"""Films that we write are what players and our reader expect."""

from pathlib import Path

import av
import numpy as np
import pytest

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media import Sampling, read_clip, write_clip


def ramp(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    greys = np.linspace(20, 230, count).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).copy()


@pytest.mark.parametrize(
    ("suffix", "codec", "inside"),
    [
        ("mp4", "h264", "h264"),
        ("mov", "h264", "h264"),
        ("mkv", "h264", "h264"),
        ("webm", "vp9", "vp9"),
        ("mp4", "mpeg4", "mpeg4"),
        ("avi", "mpeg4", "mpeg4"),
    ],
)
def test_what_is_written_is_read_back(suffix: str, codec: str, inside: str, tmp_path: Path) -> None:
    frames = ramp(10)
    path = write_clip(tmp_path / f"clip.{suffix}", frames, 5, codec=codec, crf=4)
    clip = read_clip(path, Sampling(frames=10))
    assert clip.frame_count == 10
    assert clip.frames_per_second == pytest.approx(5.0)
    assert np.abs(clip.frames.astype(int) - frames).max() <= 6
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == inside


def test_frames_may_come_from_an_iterator_and_give_the_same_file(tmp_path: Path) -> None:
    frames = ramp(6)
    first = write_clip(tmp_path / "a.mp4", frames, 10)
    second = write_clip(tmp_path / "b.mp4", (frame for frame in frames), 10)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "h264"), ("mkv", "h264"), ("webm", "vp9"), ("avi", "mpeg4")]
)
def test_the_same_frames_give_the_same_bytes_every_time(suffix: str, codec: str, tmp_path: Path) -> None:
    # Frames and size for which x264, left to itself, gave six files in sixty runs.
    noise = np.random.default_rng(0).integers(0, 256, (18, 16, 3), dtype=np.uint8)
    mosaic = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    frames = np.stack([mosaic[shift : shift + 72, shift : shift + 96] for shift in range(24)])
    files = set()
    for _ in range(10):
        junk = np.random.default_rng().integers(0, 256, 100_000, dtype=np.uint8)  # other memory each time
        files.add(write_clip(tmp_path / f"a.{suffix}", frames, 12, codec=codec).read_bytes())
        del junk
    assert len(files) == 1


def test_options_for_x264_are_added_to_our_own(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.mp4", ramp(12), 12)
    other = write_clip(tmp_path / "b.mp4", ramp(12), 12, options={"x264-params": "weightp=0"})
    assert b"weightp=2" in plain.read_bytes()  # x264 writes its settings into the stream
    assert b"weightp=0" in other.read_bytes()


def test_options_reach_the_encoder(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mp4", ramp(12), 29.97, gop=3, pix_fmt="yuv444p", options={"preset": "ultrafast"}
    )
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv444p"
        assert float(stream.average_rate) == pytest.approx(29.97, abs=1e-3)
        assert [packet.is_keyframe for packet in container.demux(stream) if packet.size] == [
            True,
            False,
            False,
        ] * 4


def test_frames_may_have_their_own_times(tmp_path: Path) -> None:
    times = [0, 0.5, 0.6, 2.0]
    clip = read_clip(write_clip(tmp_path / "a.mp4", ramp(4), 10, times_s=times))
    assert clip.times_s == pytest.approx(times, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"path": "clip.txt"}, ConfigError, "ends in .mp4"),
        ({"crf": 99}, ConfigError, "expected 0"),
        ({"frames_per_second": 0}, ConfigError, "above 0"),
        ({"times_s": [0.0]}, ConfigError, "1 times were given"),
        ({"times_s": [0.0, 1.0, 2.0, 3.0]}, ConfigError, "4 times were given for 3 frames"),
        ({"frames": []}, MediaError, "no frames"),
        (
            {"frames": [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)]},
            MediaError,
            "frame 1 is 6x4",
        ),
        ({"path": "clip.webm"}, ConfigError, "h264 .* in webm cannot be written"),
        ({"path": "nowhere/clip.mp4"}, MediaError, "no such file"),
        ({"pix_fmt": "no-such"}, ConfigError, "pix_fmt='no-such'"),
        ({"options": {"presett": "fast"}}, ConfigError, "knows no option presett"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(settings, error, says: str, tmp_path: Path) -> None:
    wanted = {"path": "clip.mp4", "frames": ramp(3), "frames_per_second": 10.0, **settings}
    path = tmp_path / wanted.pop("path")
    with pytest.raises(error, match=r"(?i)" + says):
        write_clip(path, wanted.pop("frames"), wanted.pop("frames_per_second"), **wanted)
    assert list(tmp_path.iterdir()) == []
