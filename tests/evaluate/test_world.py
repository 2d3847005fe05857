"""Marks are counted right, and the whole examination runs on real files."""

import json
import random
from pathlib import Path

import pytest

from llava_next_video import VideoAssistant
from llava_next_video.errors import ConfigError
from llava_next_video.evaluate import Score, examine_world, kept_answers, wilson_interval, world_manifest
from llava_next_video.evaluate.manifest import Manifest
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
    told: list[tuple[int, int]] = []
    report = examine_world(
        assistant, clips=10, pictures=1, seed=5, told=lambda done, wanted: told.append((done, wanted))
    )
    assert set(NUMBERS) | {PICTURES} <= report.scores.keys()
    asked = sum(score.asked for families in report.scores.values() for score in families.values())
    assert told == [(done, asked) for done in range(asked + 1)]
    assert all(report.overall(group).share < 0.5 for group in report.scores)


def test_an_examination_of_nothing_is_refused(tiny_checkpoint) -> None:
    with pytest.raises(ConfigError, match="expected clips or pictures"):
        examine_world(VideoAssistant.load(tiny_checkpoint), clips=0, seed=0)


def examined(
    assistant: VideoAssistant, model: Manifest, path: Path, *, clips: int, pictures: int = 0
) -> tuple[WorldReport, list[tuple[int, int]]]:
    """An examination that keeps its answers in that file, and what it told."""
    told: list[tuple[int, int]] = []
    with kept_answers(path, world_manifest(seed=5, frames=2, model=model)) as kept:
        report = examine_world(
            assistant,
            clips=clips,
            pictures=pictures,
            seed=5,
            frames=2,
            told=lambda done, wanted: told.append((done, wanted)),
            kept=kept,
        )
    return report, told


def test_what_is_answered_is_not_asked_again_and_the_scores_are_those_of_one_run(
    assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    quiet, _ = examined(assistant, model, path, clips=1, pictures=1)
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    places = {(row["id"], row["part"]) for row in map(json.loads, lines)}
    assert len(places) == len(lines)
    assert {name for name, _ in places} == {"clip-000000", "image-000000", "blurred-000000"}
    path.write_text("".join(lines[:3]) + lines[3][:20])  # Killed in the middle of the fourth line.
    again, told = examined(assistant, model, path, clips=1, pictures=1)
    assert told == [(done, len(lines)) for done in range(3, len(lines) + 1)]
    assert again == quiet
    assert path.read_text() == whole


def test_an_examination_goes_on_with_more_clips(
    assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    examined(assistant, model, path, clips=1)
    before = path.read_text()
    more, _ = examined(assistant, model, path, clips=2)
    assert more == examine_world(assistant, clips=2, seed=5, frames=2)
    after = path.read_text()
    assert after.startswith(before)
    new = after.removeprefix(before).splitlines()
    assert {json.loads(line)["id"] for line in new} == {"clip-000001"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 6}, "seed: 5, now 6"),
        ({"frames": 4}, "sampler.frames: 2, now 4"),
        ({"model": {"name": "mine", "sha256": "b"}}, "model.sha256: a, now b"),
    ],
)
def test_a_file_that_was_begun_otherwise_is_refused_and_kept_unless_it_is_empty(
    changed: dict[str, Manifest | int], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    given = {"seed": 5, "frames": 2, "model": {"name": "mine", "sha256": "a"}}
    with kept_answers(path, world_manifest(**given)) as kept:
        kept.add({"id": "clip-000000", "part": 0, "answer": "Red."})
    before = path.read_text()
    begun = f"begun with another manifest \\({told}\\); go on as it was begun, or give another --answers$"
    with pytest.raises(ConfigError, match=begun), kept_answers(path, world_manifest(**given | changed)):
        pass
    assert path.read_text() == before
    path.unlink()
    with kept_answers(path, world_manifest(**given | changed)) as kept:
        assert kept.rows == []


def test_lines_of_somebody_else_and_a_file_in_use_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    manifest = world_manifest(seed=5, frames=2, model={})
    path.write_text("mine\n")
    nameless = "has no answers.jsonl.manifest.json beside it"
    with pytest.raises(ConfigError, match=nameless), kept_answers(path, manifest):
        pass
    assert path.read_text() == "mine\n"
    path.unlink()
    with kept_answers(path, manifest):
        pass
    for lines, told in (
        ("{}\n", ":1: answer and id and part missing"),
        ("mine\n", "holds a line that is no JSON"),
    ):
        path.write_text(lines)
        with pytest.raises(ConfigError, match=told), kept_answers(path, manifest):
            pass
    path.unlink()
    used = r"another process writes it; wait for it, or give another --answers"
    with kept_answers(path, manifest), pytest.raises(ConfigError, match=used), kept_answers(path, manifest):
        pass
