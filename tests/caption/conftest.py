"""Small clips, a program that captions them, and what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from tests.caption.script import Script

from llava_next_video.media import write_clip

TELLER = Path(__file__).with_name("teller.py")
Start = Callable[..., "subprocess.Popen[str]"]


def plain_clip(path: Path, colour: Sequence[int], frames: int = 6) -> Path:
    """A clip of one colour, 32 x 24."""
    return write_clip(
        path, np.full((frames, 24, 32, 3), colour, np.uint8), 12, options={"preset": "ultrafast"}
    )


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of different greys, four copies of the first, two files that are no clips."""
    folder = tmp_path_factory.mktemp("captioned")
    for number in range(24):
        plain_clip(folder / f"clip-{number:02d}.mp4", [10 * number] * 3)
    for number in range(4):
        (folder / f"copy-{number}.mp4").write_bytes((folder / "clip-00.mp4").read_bytes())
    (folder / "cut.mp4").write_bytes((folder / "clip-01.mp4").read_bytes()[:300])
    (folder / "text.mp4").write_text("no clip at all")
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the program of `teller.py` on inputs; everything it is asked about goes to `asked.txt`."""

    def started(
        *inputs: object, output: Path = tmp_path / "out", **settings: object
    ) -> subprocess.Popen[str]:
        words = [str(output), str(tmp_path / "asked.txt"), json.dumps({"workers": 1, **settings})]
        command = [sys.executable, str(TELLER), *words, *map(str, inputs)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    return started


def rows_of(output: Path) -> list[dict[str, object]]:
    """The output as any reader of parquet sees it."""
    return parquet.read_table(output).to_pylist()


@pytest.fixture
def script() -> Iterator[Script]:
    """A server that answers well, until it is told otherwise."""
    script = Script()
    yield script
    script.close()
