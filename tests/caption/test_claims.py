"""Who may take what: living owners keep their blocks, dead ones lose them once."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llava_next_video.caption.claims import Claims, Owner, read_owner


def owner_file(folder: Path, claims: Claims) -> Path:
    return folder / "_state" / f"{claims.name}.owner"


def test_a_block_belongs_to_whoever_came_first_until_he_gives_it_up(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("block") is None
    assert first.take("block") is None  # still ours
    holder = second.take("block")
    assert holder is not None
    assert holder.name == first.name
    first.release("block")
    assert second.take("block") is None
    first.close()
    second.close()
    assert not list((tmp_path / "_state" / "claims").iterdir())


def test_the_dead_of_this_machine_are_inherited_at_once_and_only_once(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from llava_next_video.caption.claims import Claims;"
        "claims = Claims(pathlib.Path(sys.argv[1])); claims.take('block'); print(claims.name);"
        "sys.stdout.flush(); os._exit(9)"
    )
    dead = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    first, second = Claims(tmp_path), Claims(tmp_path)
    inherited: list[str] = []
    first.inherit = second.inherit = inherited.append
    assert first.take("block") is None
    assert inherited == [dead.stdout.strip()]
    holder = second.take("block")
    assert holder is not None
    assert holder.name == first.name
    assert second.bury_dead() == [read_owner(owner_file(tmp_path, first))]
    first.close()
    second.close()


def elsewhere(folder: Path, claims: Claims) -> None:
    """Make a living owner look like one of another machine, which can only be watched."""
    path = owner_file(folder, claims)
    owner = read_owner(path)
    assert owner is not None
    text = str({**dataclasses.asdict(owner), "place": "another boot"}).replace("'", '"')
    with path.open("r+") as file:  # in place: a claim is a link to it
        file.write(f"{text:<400}\n")


def test_a_silent_owner_of_another_machine_is_dead_after_a_lease_by_our_clock(tmp_path: Path) -> None:
    silent = Claims(tmp_path, beat_s=60.0)
    silent.take("block")
    silent.stop()
    elsewhere(tmp_path, silent)
    os.utime(owner_file(tmp_path, silent), (0, 0))  # its clock may say anything
    watcher = Claims(tmp_path, lease_s=0.2)
    assert watcher.take("block") is not None
    deadline = time.monotonic() + 10
    while watcher.take("block") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watcher.release("block")
    watcher.close()


def test_a_beating_owner_of_another_machine_stays_alive(tmp_path: Path) -> None:
    watcher = Claims(tmp_path, lease_s=0.2)
    owner = Owner(name="far", place="another boot", pid=1, started="1", beat=0)
    for beat in range(5):
        assert not watcher.dead(dataclasses.replace(owner, beat=beat))
        time.sleep(0.06)
    watcher.close()


def test_an_owner_that_was_buried_alive_can_go_on(tmp_path: Path) -> None:
    slow, hasty = Claims(tmp_path, beat_s=60.0), Claims(tmp_path)
    slow.take("one")
    owner_file(tmp_path, slow).unlink()
    assert hasty.take("two") is None
    assert slow.take("three") is None
    assert read_owner(owner_file(tmp_path, slow)) is not None
    slow.close()
    hasty.close()


def test_a_claim_that_a_power_cut_emptied_has_an_owner_without_a_pulse(tmp_path: Path) -> None:
    claims = tmp_path / "_state" / "claims"
    watcher = Claims(tmp_path, lease_s=0.1)
    (claims / "block.0").write_text("")
    holder = watcher.take("block")
    assert holder is not None
    assert holder.gone is None
    time.sleep(0.15)
    assert watcher.take("block") is None
    watcher.release("block")
    assert not list(claims.iterdir())
    watcher.close()


def test_a_journal_without_its_owner_is_inherited_after_a_lease(tmp_path: Path) -> None:
    watcher = Claims(tmp_path, lease_s=0.1)
    inherited: list[str] = []
    watcher.inherit = inherited.append
    (tmp_path / "_state" / "gone.jsonl").write_text("")
    assert [owner.name for owner in watcher.bury_dead()] == ["gone"]
    time.sleep(0.15)
    assert watcher.bury_dead() == []
    assert inherited == ["gone"]
    watcher.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system tells nothing of its processes")
def test_a_process_id_that_was_given_out_again_is_another_owner(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    ours = read_owner(owner_file(tmp_path, claims))
    assert ours is not None
    assert ours.gone is False
    assert dataclasses.replace(ours, started="1").gone is True
    claims.close()
