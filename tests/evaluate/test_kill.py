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
from llava_next_video.evaluate import examine, prepare, score
from llava_next_video.evaluate.manifest import Manifest

pytestmark = pytest.mark.slow

SOON_S = 60.0


def start(table: Path, clips: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """`evaluate run` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "llava_next_video.cli",
        "evaluate",
        "run",
        "videomme",
        table,
        "--videos",
        clips,
    ]
    return subprocess.Popen(
        [*command, "--output", out, "--protocol", "lmms-eval", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TRANSFORMERS_VERBOSITY": "error"},
    )


def answered(out: Path) -> list[str]:
    """Items with an answer, by whole lines, in the order they came."""
    lines = [line for path in out.glob("answers-*.jsonl") for line in path.read_text().split("\n")[:-1]]
    return [json.loads(line)["id"] for line in lines]


def test_after_a_kill_two_processes_ask_what_is_left_and_the_score_is_that_of_a_quiet_run(
    assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    clips, killed = tmp_path / "clips", tmp_path / "killed"
    table = write_set("videomme", film_toys(clips, clips=6), tmp_path)
    process = start(table, clips, killed)
    until = time.monotonic() + SOON_S
    while not answered(killed):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = answered(killed)
    pair = [start(table, clips, killed, "--shard", f"{number}/2") for number in (1, 2)]
    told = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(error for _, error in told)
    ids = answered(killed)
    assert len(ids) == len(set(ids)) == 12
    assert set(before) < set(ids)
    work = prepare("videomme", [table], clips, protocol="lmms-eval")
    quiet = examine(work, tmp_path / "quiet", assistant=assistant, model=model)
    assert score([killed]).rows == quiet.rows
    assert quiet.overall().count == 12
