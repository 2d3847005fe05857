"""Shards, blocks, duplicates, flags: who does what, once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava_next_video.caption import Item, share
from llava_next_video.caption.duplicates import Duplicates, look_of
from llava_next_video.caption.feed import blocks_of
from llava_next_video.caption.outcome import Sight, Told
from llava_next_video.caption.quality import flags
from llava_next_video.errors import ConfigError
from llava_next_video.size import Size
from llava_next_video.world import Film
from llava_next_video.world.write import clip_scene, frames_of


def items(seconds: list[float]) -> list[Item]:
    return [
        Item(id=str(number), source=f"{number}.mp4", prompt="Why?", seconds=long)
        for number, long in enumerate(seconds)
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 600), max_size=60), st.integers(1, 9))
def test_shards_are_a_partition_and_differ_by_one_video_at_most(seconds: list[float], count: int) -> None:
    shards = [share(items(seconds), index, count) for index in range(count)]
    assert sorted(item.id for shard in shards for item in shard) == sorted(i.id for i in items(seconds))
    loads = [sum(item.seconds or 0.0 for item in shard) for shard in shards]
    assert max(loads) - min(loads) <= max(seconds, default=0.0) + 1e-6


def test_without_durations_the_files_sizes_are_shared_out(tmp_path: Path) -> None:
    given = []
    for number, size in enumerate([900, 100, 500, 300, 100, 100]):
        (tmp_path / str(number)).write_bytes(bytes(size))
        given.append(Item(id=str(number), source=str(tmp_path / str(number)), prompt="Why?"))
    assert [[item.id for item in share(given, index, 2)] for index in range(2)] == [
        ["0", "4"],  # 900 + 100; the last 100 evens it out
        ["1", "2", "3", "5"],
    ]


def test_there_is_no_third_of_two_shards() -> None:
    with pytest.raises(ConfigError, match="shard 3 of 2"):
        share(items([1.0]), 2, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 700))
def test_blocks_are_the_list_in_order(count: int) -> None:
    blocks = blocks_of(items([1.0] * count))
    assert [item.id for block in blocks for item in block.items] == [str(number) for number in range(count)]
    assert len({block.name for block in blocks}) == len(blocks)
    assert all(1 <= len(block.items) <= 32 for block in blocks)


def told(id: str) -> Told:
    return Told(id=id, caption="A dog.", finish_reason="stop", flags=())


def sight(sha256: str, prompt: str = "Why?", look: str | None = None) -> Sight:
    return Sight(sha256=sha256, prompt=prompt, duration_s=2.0, look=look)


def test_who_comes_while_the_first_is_asked_waits_and_later_ones_are_told() -> None:
    known = Duplicates("exact")
    assert known.meet(sight("aa"), "first task") == "first"
    assert known.meet(sight("aa"), "second task") == "wait"
    assert known.meet(sight("aa", "What?"), "another question") == "first"
    assert known.meet(sight("bb"), "another video") == "first"
    assert known.done(sight("aa"), told("1")) == ["second task"]
    assert known.meet(sight("aa"), "third task") == told("1")
    assert known.done(sight("bb"), None) == []  # it failed: the next one is asked
    assert known.meet(sight("bb"), "again") == "first"


def test_switched_off_every_copy_is_asked_about() -> None:
    known = Duplicates("off")
    assert [known.meet(sight("aa"), number) for number in range(2)] == ["first", "first"]


def shown(number: int) -> np.ndarray:
    scene, _, _ = clip_scene(5, number)
    return frames_of(scene, Film(size=Size(96, 128), times=tuple(moment / 7 for moment in range(8))))


def test_a_smaller_worse_copy_is_found_and_other_clips_are_not_taken_for_it() -> None:
    known = Duplicates("near")
    clips = [shown(number) for number in range(16)]
    for number, frames in enumerate(clips):
        assert known.meet(sight(f"{number:02d}", look=look_of(frames)), number) == "first"
        known.done(sight(f"{number:02d}"), told(str(number)))
    found = [
        known.meet(sight(f"copy {number}", look=look_of(again(frames))), number)
        for number, frames in enumerate(clips)
    ]
    right = [isinstance(one, Told) and one.id == str(number) for number, one in enumerate(found)]
    assert sum(right) >= 14  # a copy that is missed costs one more answer
    assert all(one == "first" or isinstance(one, Told) for one in found)
    assert sum(isinstance(one, Told) for one in found) == sum(right)  # never another clip's caption


def again(frames: np.ndarray) -> np.ndarray:
    """The frames at two thirds of the size, through JPEG of low quality."""
    copies = []
    for frame in frames:
        smaller = Image.fromarray(frame).resize((frame.shape[1] * 2 // 3, frame.shape[0] * 2 // 3))
        file = io.BytesIO()
        smaller.save(file, "JPEG", quality=60)
        copies.append(np.asarray(Image.open(file)))
    return np.stack(copies)


def test_a_thing_of_another_colour_is_another_clip() -> None:
    frames = np.full((8, 120, 160, 3), 128, np.uint8)
    red, blue = frames.copy(), frames.copy()
    red[:, 50:70, 70:90] = (220, 40, 40)
    blue[:, 50:70, 70:90] = (40, 40, 220)
    known = Duplicates("near")
    assert known.meet(sight("red", look=look_of(red)), 1) == "first"
    assert known.meet(sight("blue", look=look_of(blue)), 2) == "first"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man walks, and a man sits, and a man stands up.", ()),
        ("It is very, very, very cold.", ()),
        ("no no no no no no no", ("repetition",)),
        ("the ball rolls to the left " * 3, ("repetition",)),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaa", ("repetition",)),
        ("...", ("empty",)),
    ],
)
def test_suspicious_captions_are_flagged(caption: str, expected: tuple[str, ...]) -> None:
    assert flags(caption, cut=False) == expected
