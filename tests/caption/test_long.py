"""The long ones: twenty kills over 500 videos, our own server, a cluster that loses an actor."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.caption.conftest import Start, plain_clip, rows_of
from tests.caption.test_kill import IN_FLIGHT, lines
from tests.serve.conftest import serving

from llava_next_video import VideoAssistant
from llava_next_video.caption import Settings, caption, list_items
from llava_next_video.caption.local import local_model
from llava_next_video.caption.servers import Send, server_model
from llava_next_video.media import Sampling
from llava_next_video.world import write_world

pytestmark = pytest.mark.slow
OPTIONS: dict[str, object] = {"max_new_tokens": 24}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 videos: 460 clips, 30 copies of the first three, 10 that are cut short."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(460):
        plain_clip(folder / f"clip-{number:03d}.mp4", (number % 250, number // 2, 40), frames=4)
    for number in range(30):
        copied = (folder / f"clip-{number % 3:03d}.mp4").read_bytes()
        (folder / f"copy-{number:03d}.mp4").write_bytes(copied)
    for number in range(10):
        (folder / f"cut-{number:03d}.mp4").write_bytes((folder / "clip-005.mp4").read_bytes()[: 40 * number])
    return folder


def test_twenty_runs_killed_at_random_moments_leave_each_id_once(
    many: Path, start: Start, tmp_path: Path
) -> None:
    asked, dice, kills = tmp_path / "asked.txt", random.Random(1), 0
    for number in range(20):
        run = start(many, delay_s=0.05, part_rows=dice.choice([3, 20, 1000]))
        before, started = lines(asked), time.monotonic()
        # Every fifth is killed while it starts.
        while number % 5 and lines(asked) == before and run.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.uniform(0.0, 0.4) if number % 5 else dice.uniform(0.0, 1.0))
        kills += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert time.monotonic() - started < 120
    run = start(many)
    assert run.communicate()[1] == ""
    rows = rows_of(tmp_path / "out")
    assert sorted(str(row["id"]) for row in rows) == sorted(path.name for path in many.iterdir())
    assert sum(row["error"] is not None for row in rows) == 10
    contents = [path.read_bytes() for path in many.iterdir() if not path.name.startswith("cut")]
    assert sum(row["duplicate_of"] is not None for row in rows) == len(contents) - len(set(contents)) >= 30
    again = sum(count - 1 for count in Counter(asked.read_text().split()).values())
    assert again <= kills * IN_FLIGHT
    assert kills >= 15


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    write_world(folder, clips=24, images=0, seed=8)
    return folder / "videos"


def captions(output: Path) -> dict[object, object]:
    return {row["id"]: row["caption"] for row in rows_of(output)}


def told_here(films: Path, output: Path) -> dict[object, object]:
    model, _ = local_model(None, {}, "Describe the video.", Sampling(), OPTIONS)
    caption(list_items([str(films)], "Describe the video."), output, model, report=False)
    return captions(output)


@pytest.mark.parametrize("send", ["video", None])
def test_our_server_gives_the_captions_that_the_model_here_gives(
    films: Path, tmp_path: Path, send: Send | None
) -> None:
    here = told_here(films, tmp_path / "here")
    with serving(VideoAssistant.load()) as running:
        model = server_model(
            [running.url],
            None,
            "Describe the video.",
            Sampling(),
            OPTIONS,
            send=send,
            at_once=8,
            look=False,
            key=None,
        )
        items = list_items([str(films)], "Describe the video.")
        caption(items, tmp_path / "there", model, Settings(), report=False)
    assert captions(tmp_path / "there") == here
    assert len(here) == 24


def command(*words: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "llava_next_video.cli", "caption", *map(str, words)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_command_killed_twice_goes_on(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [films, "--output", out, "--prompt", "Describe the video.", "--max-tokens", 24, "--part-rows", 4]
    for parts in (1, 3):
        run = command(*words)
        while len(list(out.glob("part-*"))) < parts and run.poll() is None:
            time.sleep(0.01)
        run.kill()
        run.communicate()
    run = command(*words)
    told, errors = run.communicate()
    assert (run.returncode, told.strip()) == (0, str(out)), errors
    assert len(rows_of(out)) == 24
    assert captions(out) == told_here(films, tmp_path / "whole")


@pytest.mark.xdist_group("ray")
def test_a_cluster_that_loses_a_model_actor_writes_each_id_once(films: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    out = tmp_path / "out"
    words = [films, "--output", out, "--prompt", "Describe the video.", "--max-tokens", 24, "--part-rows", 4]
    run = command(*words, "--ray", "local", "--workers", 1)
    killed = False
    while run.poll() is None and not killed:
        if list(out.glob("part-*")):
            for process in descendants(run.pid):
                if "Answerer" in title(process):
                    os.kill(process, signal.SIGKILL)
                    killed = True
        time.sleep(0.05)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert killed
    assert captions(out) == told_here(films, tmp_path / "here")
    assert len(rows_of(out)) == 24


def descendants(parent: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    open_ids = [parent]
    while open_ids:
        found = children.get(open_ids.pop(), [])
        yield from found
        open_ids.extend(found)


def title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""
