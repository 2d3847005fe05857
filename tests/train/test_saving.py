"""A checkpoint is whole or not there."""

import json
from pathlib import Path

import pytest

from llava_next_video.errors import CapacityError
from llava_next_video.train.curve import draw_curve
from llava_next_video.train.journal import keep_until
from llava_next_video.train.saving import checkpoints, clear_attempts, forget_old, write_whole


def writes(text: str) -> object:
    return lambda folder: (folder / "weights").write_text(text)


def fills_the_disk(folder: Path) -> None:
    """Writes to the one device that is always full."""
    (folder / "weights").symlink_to("/dev/full")
    (folder / "weights").write_text("x" * 100_000)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    write_whole(tmp_path / "checkpoint-1", writes("one"))
    with pytest.raises(CapacityError) as refusal:
        write_whole(tmp_path / "checkpoint-2", fills_the_disk)
    assert str(refusal.value) == (
        f"{tmp_path}/checkpoint-2: cannot be saved (No space left on device); checkpoint-1 is whole; make "
        "room and run the same command to go on"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]
    assert (tmp_path / "checkpoint-1" / "weights").read_text() == "one"


def test_a_folder_that_is_written_again_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    write_whole(tmp_path / "final", writes("old"))
    with pytest.raises(CapacityError):
        write_whole(tmp_path / "final", fills_the_disk)
    assert (tmp_path / "final" / "weights").read_text() == "old"
    write_whole(tmp_path / "final", writes("new"))
    assert (tmp_path / "final" / "weights").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_weights_that_only_their_owner_could_read_are_as_open_as_their_folder(tmp_path: Path) -> None:
    def private(folder: Path) -> None:
        folder.chmod(0o750)
        (folder / "weights").touch(mode=0o600)

    write_whole(tmp_path / "final", private)
    assert (tmp_path / "final" / "weights").stat().st_mode & 0o777 == 0o640


def test_old_checkpoints_and_interrupted_saves_go(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        write_whole(tmp_path / f"checkpoint-{step}", writes("x"))
    (tmp_path / "partial-checkpoint-11").mkdir()
    clear_attempts(tmp_path)
    forget_old(tmp_path, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10"]
    assert len(list(tmp_path.iterdir())) == 2


def test_lines_of_steps_that_are_done_again_go(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo')
    keep_until(metrics, 2)
    assert metrics.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_curve_is_a_picture_with_every_point() -> None:
    from xml.etree import ElementTree

    picture = ElementTree.fromstring(draw_curve([(1, 3.0), (2, 2.0), (5, 1.0)], "loss < 1"))
    raw, smooth = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert raw.attrib["points"].split() == ["56.0,28.0", "198.0,156.0", "624.0,284.0"]
    assert len(smooth.attrib["points"].split()) == 3
