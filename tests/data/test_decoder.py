"""A medium that cannot be decoded costs itself, never the run."""

import os
import pickle
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from llava_next_video.data.decoder import Decoder
from llava_next_video.data.record import Slice
from llava_next_video.errors import MediaError
from llava_next_video.media import Clip, FetchPolicy, Picture, Sampling
from llava_next_video.messages import Image, Video

FOUR = Sampling(frames=4)


class Hangs:
    """Stands for a clip whose decoder never returns: it sleeps in the process that opens it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return time.sleep, (60,)


class Crashes:
    """Stands for a clip that takes its decoder down: it ends the process that opens it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(4):
        Pillow.new("RGB", (8, 6), (number, 0, 0)).save(frames / f"{number}.png")
    return frames


def test_clips_and_pictures_come_back_from_the_child(folder: Path) -> None:
    with Decoder() as decoder:
        clip = decoder.read(Video(source=str(folder)), FOUR)
        picture = decoder.read(Image(source=str(folder / "2.png")), FOUR)
    assert isinstance(clip, Clip)
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert isinstance(picture, Picture)
    assert np.asarray(picture.image)[0, 0].tolist() == [2, 0, 0]


def test_a_medium_that_hangs_or_crashes_is_one_error_and_the_next_one_works(folder: Path) -> None:
    with Decoder(timeout_s=0.3) as decoder:
        with pytest.raises(MediaError, match=r"not decoded within 0\.3 s; the decoder was stopped"):
            decoder.read(Video(source=Hangs()), FOUR)
        decoder.timeout_s = 60.0
        with pytest.raises(MediaError, match=r"the decoder died on it \(exit status 3\)"):
            decoder.read(Video(source=Crashes()), FOUR)
        assert isinstance(decoder.read(Video(source=str(folder)), FOUR), Clip)


@pytest.mark.slow
def test_a_child_is_replaced_after_its_share_of_media(folder: Path) -> None:
    with Decoder(recycle_after=2) as decoder:
        children = []
        for _ in range(3):
            decoder.read(Image(source=str(folder / "0.png")), FOUR)
            children.append(decoder.child)
    assert children[0] is not None
    assert children[1] is None
    assert children[2] not in (None, children[0])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"nothing that anybody can play")
    with Decoder() as decoder, pytest.raises(MediaError, match=r"broken\.mp4"):
        decoder.read(Video(source=str(path)), FOUR)


@pytest.mark.slow
def test_a_decoder_can_be_handed_to_another_process(folder: Path) -> None:
    with Decoder() as decoder:
        decoder.read(Image(source=str(folder / "0.png")), FOUR)
        with pickle.loads(pickle.dumps(decoder)) as copy:
            assert copy.child is None
            assert isinstance(copy.read(Image(source=str(folder / "0.png")), FOUR), Picture)
        assert isinstance(decoder.read(Image(source=str(folder / "0.png")), FOUR), Picture)


def test_a_medium_inside_an_archive_is_read_in_place(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(folder / "3.png", "000.png")
    with tarfile.open(tmp_path / "shard.tar") as archive:
        member = archive.getmember("000.png")
    place = {"file": str(tmp_path / "shard.tar"), "offset": member.offset_data, "name": "000.png"}
    with Decoder() as decoder:
        picture = decoder.read(Image(source=Slice(size=member.size, **place)), FOUR)
        assert isinstance(picture, Picture)
        assert np.asarray(picture.image)[0, 0].tolist() == [3, 0, 0]
        with pytest.raises(MediaError, match=r"000\.png in .*shard\.tar: \d+ bytes left of 9999999"):
            decoder.read(Image(source=Slice(size=9_999_999, **place)), FOUR)
        with pytest.raises(MediaError, match=r"^000\.png in .*shard\.tar: (?!\d+ bytes)"):
            decoder.read(Image(source=Slice(size=20, **place)), FOUR)


def test_the_child_fetches_what_the_policy_allows_and_nothing_else(folder: Path) -> None:
    there = Image(source=(folder / "2.png").as_uri())
    with Decoder(policy=FetchPolicy(folders=(folder,))) as decoder:
        assert isinstance(decoder.read(there, FOUR), Picture)
    with (
        Decoder(policy=FetchPolicy(schemes=frozenset({"data"}))) as decoder,
        pytest.raises(MediaError, match="file URLs are not allowed here"),
    ):
        decoder.read(there, FOUR)
