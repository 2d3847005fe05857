"""Training says what it has to say, and its libraries nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_importing_it_prints_nothing() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import llava_next_video.train.run, peft"], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
