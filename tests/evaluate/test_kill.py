"""A killed evaluation, and two that share one folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.evaluate.toy_sets import film_toys, write_set

from llava_next_video.assistant import VideoAssistant
from llava_next_video.evaluate import examine, examine_world, prepare, score
from llava_next_video.evaluate.manifest import Manifest

pytestmark = pytest.mark.slow

SOON_S = 60.0


def start(*words: str | Path) -> subprocess.Popen[str]:
    """`evaluate` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "llava_next_video.cli", "evaluate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TRANSFORMERS_VERBOSITY": "error"},
    )


def answered(*logs: Path) -> list[tuple[str, int]]:
    """What has an answer, by whole lines, in the order they came."""
    lines = [json.loads(line) for path in logs for line in path.read_text().split("\n")[:-1]]
    return [(line["id"], line["part"]) for line in lines]


def kill_with_an_answer(process: subprocess.Popen[str], log: Path) -> None:
    """Kill a process as soon as its log has a line."""
    until = time.monotonic() + SOON_S
    while not (log.exists() and answered(log)):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_after_a_kill_two_processes_ask_what_is_left_and_the_score_is_that_of_a_quiet_run(
    assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    clips, killed = tmp_path / "clips", tmp_path / "killed"
    table = write_set("videomme", film_toys(clips, clips=6), tmp_path)
    words = ("run", "videomme", table, "--videos", clips, "--output", killed, "--protocol", "lmms-eval")
    kill_with_an_answer(start(*words), killed / "answers-1-of-1.jsonl")
    before = answered(*killed.glob("answers-*.jsonl"))
    pair = [start(*words, "--shard", f"{number}/2") for number in (1, 2)]
    told = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(error for _, error in told)
    items = answered(*killed.glob("answers-*.jsonl"))
    assert len(items) == len(set(items)) == 12
    assert set(before) < set(items)
    work = prepare("videomme", [table], clips, protocol="lmms-eval")
    quiet = examine(work, tmp_path / "quiet", assistant=assistant, model=model)
    assert score([killed]).rows == quiet.rows
    assert quiet.overall().count == 12


def test_a_killed_examination_of_the_world_goes_on_to_the_scores_of_a_quiet_one(
    assistant: VideoAssistant, tmp_path: Path
) -> None:
    log, scores = tmp_path / "answers.jsonl", tmp_path / "scores.json"
    words = ("world", "--clips", "6", "--seed", "5", "--frames", "4", "--answers", log, "--out", scores)
    kill_with_an_answer(start(*words), log)
    before = answered(log)
    assert not scores.exists()
    process = start(*words)
    _, error = process.communicate()
    assert process.returncode == 0, error
    quiet = examine_world(assistant, clips=6, seed=5, frames=4)
    assert json.loads(scores.read_text()) == json.loads(json.dumps(quiet.as_record()))
    questions = answered(log)
    asked = sum(quiet.overall(group).asked for group in quiet.scores)
    assert len(questions) == len(set(questions)) == asked
    assert questions[: len(before)] == before
    assert len(before) < asked
