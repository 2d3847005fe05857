"""Worlds on disk, read back by the rest of the package."""

import json
import random
import re

import numpy as np
import pytest

from llava_next_video.errors import ConfigError
from llava_next_video.media import Sampling, read_clip, read_image
from llava_next_video.size import Size
from llava_next_video.world import Film, film, random_film, random_scene, write_picture, write_world
from llava_next_video.world.write import frames_of, picture_of


def test_a_film_can_be_read_back_with_its_frames(tmp_path):
    scene = random_scene(random.Random(1), things=1)
    how = Film(size=Size(64, 80), times=tuple(i / 11 for i in range(12)), frames_per_second=10.0, crf=12)
    clip = read_clip(film(scene, tmp_path / "a.mp4", how), Sampling(how="linspace", frames=12))
    assert clip.frame_count == 12
    assert clip.frames.shape == (12, 64, 80, 3)
    assert np.abs(clip.frames.astype(int) - frames_of(scene, how).astype(int)).mean() < 8


def test_a_random_film_has_even_sides_rising_times_and_the_aspect_of_the_scene():
    for seed in range(30):
        rng = random.Random(seed)
        scene = random_scene(rng)
        how = random_film(rng, scene)
        assert how.size.height % 2 == how.size.width % 2 == 0
        assert list(how.times) == sorted(how.times)
        assert how.size.width / how.size.height == pytest.approx(scene.aspect, rel=0.04)


def test_a_picture_is_written_without_loss(tmp_path):
    scene = random_scene(random.Random(2), still=True)
    picture = read_image(write_picture(scene, tmp_path / "a.png", Size(50, 70)))
    np.testing.assert_array_equal(np.asarray(picture.image), picture_of(scene, Size(50, 70)))


def test_a_written_world_is_llava_json_whose_media_exist(tmp_path):
    told = []
    rows = json.loads(write_world(tmp_path, clips=3, images=2, seed=5, told=told.append).read_text())
    assert told == [1, 2, 3, 4, 5]
    assert [set(row) - {"id", "conversations", "data_source"} for row in rows] == [{"video"}] * 3 + [
        {"image"}
    ] * 2
    for row in rows:
        kind = "video" if "video" in row else "image"
        assert (tmp_path / row[kind]).stat().st_size > 100
        spoken = row["conversations"]
        assert [turn["from"] for turn in spoken] == ["human", "gpt"] * (len(spoken) // 2)
        assert spoken[0]["value"].startswith(f"<{kind}>\n")
        assert sum(f"<{kind}>" in turn["value"] for turn in spoken) == 1


@pytest.mark.slow
def test_a_longer_world_begins_with_the_shorter_one(tmp_path):
    short = json.loads(write_world(tmp_path / "a", clips=1, images=0, seed=7).read_text())
    long = json.loads(write_world(tmp_path / "b", clips=2, images=0, seed=7).read_text())
    assert long[:1] == short
    first, again = (tmp_path / name / "videos/000000.mp4" for name in "ab")
    assert first.read_bytes() == again.read_bytes()


def test_a_world_of_some_families_asks_nothing_else_and_has_no_row_without_a_question(tmp_path):
    families = frozenset({"size"})
    rows = json.loads(
        write_world(tmp_path, clips=12, images=0, seed=3, things=2, families=families).read_text()
    )
    spoken = [row["conversations"] for row in rows]
    assert 0 < len(rows) < 12
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [row["video"][7:] for row in rows]
    words = re.compile(r"large|big|small")
    assert all(words.search(turn["value"]) for turns in spoken for turn in turns[::2])


def test_an_empty_world_is_an_empty_list(tmp_path):
    assert json.loads(write_world(tmp_path, clips=0, images=0, seed=0).read_text()) == []


def test_negative_counts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="clips, images >= 0"):
        write_world(tmp_path, clips=-1, images=0, seed=0)
