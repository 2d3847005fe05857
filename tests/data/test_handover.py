"""What one process gives another arrives whole, and nothing of it stays behind."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Pipe

import numpy as np
import pytest

from llava_next_video.data.handover import Desk, give, take


@pytest.mark.parametrize("shape", [(4, 3), (7, 300, 401, 3)])
def test_arrays_of_any_size_arrive_as_they_were_and_can_be_written(shape: tuple[int, ...]) -> None:
    given = {
        "frames": np.random.default_rng(0).integers(0, 255, shape, np.uint8),
        "times": np.linspace(0, 1, shape[0]),
        "name": "a.mp4",
    }
    here, there = Pipe()
    threading.Thread(target=give, args=(there, given)).start()
    taken = take(here)
    assert isinstance(taken, dict)
    assert taken["name"] == "a.mp4"
    for name in ("frames", "times"):
        np.testing.assert_array_equal(taken[name], given[name])
    taken["frames"][0] = 0


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list open files")
def test_no_file_stays_open() -> None:
    here, there = Pipe()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        giver = threading.Thread(target=give, args=(there, np.zeros(1 << 20, np.uint8)))
        giver.start()
        assert take(here) is not None
        giver.join()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_giver_that_is_gone_is_an_end_of_file() -> None:
    here, there = Pipe()
    there.close()
    with pytest.raises(EOFError):
        take(here)


def test_frames_on_a_desk_arrive_without_being_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = os.write

    def noted(file: int, content: bytes) -> int:
        written.append(len(content))
        return write(file, content)

    monkeypatch.setattr(os, "write", noted)
    here, there = Pipe()
    desk = Desk()
    for colour in (7, 8):
        frames = desk.room((2, 800, 1200, 3))
        frames[:] = colour
        giver = threading.Thread(target=give, args=(there, {"frames": frames}, desk))
        giver.start()
        taken = take(here)
        giver.join()
        desk.clear()
        assert isinstance(taken, dict)
        assert taken["frames"].shape == (2, 800, 1200, 3)
        assert (taken["frames"] == colour).all()
    assert sum(written) < 4096  # two messages, and none of the 11.5 million bytes of frames


def test_frames_beside_a_desk_arrive_too() -> None:
    here, there = Pipe()
    desk = Desk()
    desk.room((2, 800, 1200, 3))[:] = 1
    others = np.full((2, 800, 1200, 3), 9, np.uint8)
    giver = threading.Thread(target=give, args=(there, others, desk))
    giver.start()
    taken = take(here)
    giver.join()
    desk.clear()
    assert isinstance(taken, np.ndarray)
    assert (taken == 9).all()
