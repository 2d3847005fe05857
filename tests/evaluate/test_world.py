"""Marks are counted right, and the whole examination runs on real files."""

import random

import pytest

from llava_next_video import VideoAssistant
from llava_next_video.errors import ConfigError
from llava_next_video.evaluate import Score, examine_world, wilson_interval
from llava_next_video.evaluate.world import NUMBERS, PICTURES, WorldReport, judged
from llava_next_video.world import caption, random_scene


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_true_caption_has_every_fact_right() -> None:
    rng = random.Random(0)
    for things in (1, 2, 3):
        scene = random_scene(rng, things=things)
        assert judged(caption(scene), scene) == [True] * things


def test_missing_and_invented_facts_both_count_against_a_caption() -> None:
    scene = random_scene(random.Random(1), things=2)
    (first, _) = caption(scene).split(" and a", 1)
    assert judged(f"{first}.", scene) == [True, False]
    assert judged(f"{caption(scene)} A red star juggles.", scene) == [True, True, False]


def test_a_group_is_the_sum_of_its_families() -> None:
    families = {"colour": Score(right=3, asked=4), "shape": Score(right=1, asked=6)}
    report = WorldReport(seed=0, scores={"1 object": families}, caption_facts={})
    assert report.overall("1 object") == Score(right=4, asked=10)
    assert "| 1 object | **all** | 4 / 10 | 40.0% |" in report.table()


@pytest.mark.slow
def test_an_untrained_model_is_examined_on_clips_and_pictures(tiny_checkpoint) -> None:
    assistant = VideoAssistant.load(tiny_checkpoint)
    told: list[int] = []
    report = examine_world(assistant, clips=10, pictures=1, seed=5, told=told.append)
    assert set(NUMBERS) | {PICTURES} <= report.scores.keys()
    asked = sum(score.asked for families in report.scores.values() for score in families.values())
    assert told == list(range(1, asked + 1))
    assert all(report.overall(group).share < 0.5 for group in report.scores)


def test_an_examination_of_nothing_is_refused(tiny_checkpoint) -> None:
    with pytest.raises(ConfigError, match="expected clips or pictures"):
        examine_world(VideoAssistant.load(tiny_checkpoint), clips=0, seed=0)
