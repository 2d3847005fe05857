"""A killed evaluation, and two that share one folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_after_a_kill_each_item_is_asked_once_and_the_score_is_that_of_a_quiet_run(
    written: Callable[[str], Path], clips: Path, tmp_path: Path
) -> None:
    table, killed = written("videomme"), tmp_path / "killed"
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
    assert [process.returncode for process in pair] == [0, 0], told
    ids = answered(killed)
    assert len(ids) == len(set(ids)) == 6
    assert set(before) < set(ids)
    quiet = start(table, clips, tmp_path / "quiet")
    printed, _ = quiet.communicate()
    again = subprocess.run(
        [sys.executable, "-m", "llava_next_video.cli", "evaluate", "score", killed],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == printed
