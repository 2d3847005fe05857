"""Killed at any moment and run again, each video has one row."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.caption.conftest import Start, rows_of

DELAY_S = 0.05
IN_FLIGHT = 4 + 1 + 2  # asked at once, in the worker's hands, handed over while the kill came


def kill_when(run: subprocess.Popen[str], asked: Path, count: int) -> bool:
    """Kill the process as soon as it has asked about so many videos; False if it was over before."""
    before = lines(asked)
    while run.poll() is None:
        if lines(asked) - before >= count:
            run.send_signal(signal.SIGKILL)
            run.communicate()
            return True
        time.sleep(0.002)
    run.communicate()
    return False


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def test_after_two_kills_every_id_is_there_once_and_little_was_asked_twice(
    clips: Path, start: Start, tmp_path: Path
) -> None:
    asked, dice = tmp_path / "asked.txt", random.Random(0)
    kills = sum(
        kill_when(start(clips, delay_s=DELAY_S, part_rows=5), asked, dice.randint(2, 7)) for _ in range(2)
    )
    assert kills == 2
    run = start(clips, part_rows=5)
    assert run.communicate()[1] == ""
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert len(rows_of(tmp_path / "out")) == len(rows) == 30
    assert set(rows) == {path.name for path in clips.iterdir()}
    for number in range(24):
        grey = rows[f"clip-{number:02d}.mp4"]["caption"]
        assert abs(int(str(grey).split()[0]) - 10 * number) < 8  # the codec's rounding
    assert {id for id, row in rows.items() if row["error"]} == {"cut.mp4", "text.mp4"}
    assert sum(row["duplicate_of"] is not None for row in rows.values()) == 4  # of five equal ones
    again = [count - 1 for count in Counter(asked.read_text().split()).values()]
    assert sum(again) <= kills * IN_FLIGHT
    assert not list((tmp_path / "out" / "_state").glob("*.jsonl"))  # nothing is left behind


@pytest.mark.slow
@pytest.mark.parametrize("part_rows", [3, 1000])
def test_two_processes_share_a_folder_and_one_survives_the_other(
    clips: Path, start: Start, tmp_path: Path, part_rows: int
) -> None:
    asked = tmp_path / "asked.txt"
    first = start(clips, delay_s=0.1, part_rows=part_rows)
    second = start(clips, delay_s=0.1, part_rows=part_rows)
    assert kill_when(first, asked, 8)
    assert second.communicate()[1] == ""
    ids = [row["id"] for row in rows_of(tmp_path / "out")]
    assert sorted(ids) == sorted(path.name for path in clips.iterdir())


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_loses_nothing(clips: Path, start: Start, tmp_path: Path) -> None:
    full = start(clips, file_bytes=6000)
    told = full.communicate()[1]
    assert full.returncode == 1
    assert "File too large" in told
    assert told.count("\n") == 1
    asked_before = lines(tmp_path / "asked.txt")
    assert asked_before > 2
    assert start(clips).communicate()[1] == ""
    assert len({row["id"] for row in rows_of(tmp_path / "out")}) == len(rows_of(tmp_path / "out")) == 30
    assert lines(tmp_path / "asked.txt") < asked_before + 26  # what was finished was not asked again
