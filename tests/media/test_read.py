"""A source is read as what it is, in one go."""

import hashlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media import Clip, Picture, Sampling, is_clip, read, read_clip, read_image

FOUR = Sampling(frames=4)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)).save(file, "PNG")
    return file.getvalue()


def gif() -> bytes:
    file = io.BytesIO()
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(file, "GIF", save_all=True, append_images=[second], duration=100)
    return file.getvalue()


class Once(io.RawIOBase):
    """Bytes that can be read a single time, as from a socket."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)
        self.handed_out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._data.readinto(buffer)
        self.handed_out += count
        return count


def test_each_kind_of_source_is_read_as_what_it_is(film, tmp_path: Path) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "0.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "1.png")
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    for source in (film(), film().read_bytes(), gif(), tmp_path, frames, list(frames)):
        found = read(source, FOUR)
        wanted = read_clip(source, FOUR)
        assert isinstance(found, Clip)
        assert (found.key, found.indices, found.name) == (wanted.key, wanted.indices, wanted.name)
        assert (found.frames == wanted.frames).all()
    for source in (png(), tmp_path / "0.png", frames[0], Image.new("LA", (3, 2))):
        seen = read(source, FOUR)
        picture = read_image(source)
        assert isinstance(seen, Picture)
        assert (seen.key, seen.name, seen.size) == (picture.key, picture.name, picture.size)
        assert seen.image.tobytes() == picture.image.tobytes()


def test_a_stream_that_can_be_read_once_is_enough(film) -> None:
    for data, kind in ((film().read_bytes(), Clip), (png(), Picture), (gif(), Clip)):
        stream = Once(data)
        seen = read(stream, FOUR)
        assert isinstance(seen, kind)
        assert stream.handed_out == len(data)
        assert seen.key == hashlib.sha256(data).digest()


def test_a_pipe_may_be_read_through_its_file_object() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as pipe:
        os.write(writing, png())
        os.close(writing)
        assert isinstance(read(pipe), Picture)


@pytest.mark.parametrize("how", ["buffered", "unbuffered", "spooled"])
def test_a_file_that_was_looked_into_is_still_read_from_its_start(how: str, film) -> None:
    data = film().read_bytes()
    with {
        "buffered": tempfile.TemporaryFile,
        "unbuffered": lambda: tempfile.TemporaryFile(buffering=0),
        "spooled": tempfile.SpooledTemporaryFile,
    }[how]() as file:
        file.write(data)  # and is now at its end
        assert is_clip(file)
        assert read_clip(file, FOUR).key == hashlib.sha256(data).digest()
        assert isinstance(read(file), Clip)
        assert not file.closed


def test_what_cannot_be_read_is_refused_as_by_the_others(film, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no clip")
    with pytest.raises(MediaError, match=r"notes\.mp4: not a video file"):
        read(tmp_path / "notes.mp4")
    with pytest.raises(MediaError, match="expected uint8 with shape"):
        read(np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(MediaError, match="expected uint8 with shape"):
        read(np.zeros((4,), np.uint8))
    with pytest.raises(ConfigError, match="its own time stamps"):
        read(film(), frames_per_second=3.0)
    with pytest.raises(ConfigError, match="its own time stamps"):
        read(gif(), frames_per_second=3.0)
    assert read(np.zeros((8, 4, 4, 3), np.uint8), frames_per_second=4.0).duration_s == 2.0
