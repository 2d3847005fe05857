"""On real disks that are read-only or full, a run stops with one sentence and loses nothing."""

from __future__ import annotations

import gc
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.caption.conftest import Start, rows_of

Remount = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Remount]]:
    """A disk of its own, and a way to change how it is mounted; skips where mounting is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    try:
        mount("size=4m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk cannot be mounted here: {getattr(error, 'stderr', error)}")
    yield folder, lambda options: mount(f"remount,{options}")
    until = time.monotonic() + 20
    while subprocess.run(["umount", str(folder)], check=False, capture_output=True).returncode:
        assert time.monotonic() < until, "somebody still has files there"
        gc.collect()  # of readers that map their files
        time.sleep(0.1)


def one_sentence(run: subprocess.Popen[str]) -> str:
    told = run.communicate()[1]
    assert run.returncode == 1
    assert told.count("\n") == 1, told
    return told


def ids(output: Path) -> Counter[object]:
    return Counter(row["id"] for row in rows_of(output))


@pytest.mark.slow
def test_a_disk_that_became_read_only_keeps_what_is_there_and_a_rerun_goes_on(
    clips: Path, start: Start, tmp_path: Path, disk: tuple[Path, Remount]
) -> None:
    folder, remount = disk
    output, asked = folder / "out", tmp_path / "asked.txt"
    some = tmp_path / "some"
    some.mkdir()
    for clip in clips.glob("clip-0*"):
        (some / clip.name).symlink_to(clip)
    assert start(some, output=output).communicate()[1] == ""
    before = ids(output)
    assert len(before) == 10
    remount("ro")
    for place in (output, folder / "new"):
        assert "Read-only file system" in one_sentence(start(clips, output=place))
    assert ids(output) == before
    assert len(asked.read_text().split()) == 10  # nobody was asked for what could not be kept
    remount("rw")
    assert start(clips, output=output).communicate()[1] == ""
    assert ids(output) == Counter({path.name: 1 for path in clips.iterdir()})


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_one_with_room_finishes_it(
    clips: Path, start: Start, tmp_path: Path, disk: tuple[Path, Remount]
) -> None:
    folder, remount = disk
    output, asked = folder / "out", tmp_path / "asked.txt"
    remount("size=56k")
    run = start(clips, output=output, part_rows=5)
    assert "No space left on device" in one_sentence(run)
    done = ids(output)
    assert 5 <= len(done) < 30
    assert set(done.values()) == {1}
    earlier = set(asked.read_text().split())
    asked.unlink()
    remount("size=4m")
    assert start(clips, output=output, part_rows=5).communicate()[1] == ""
    assert ids(output) == Counter({path.name: 1 for path in clips.iterdir()})
    again = set(asked.read_text().split()) if asked.exists() else set()
    assert not again & set(done)
    assert len(again & earlier) <= 4 + 1 + 2  # under way when the disk was full
    assert not list((output / "_state").glob("*.jsonl"))
