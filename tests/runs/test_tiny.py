"""The recipe of the tiny checkpoint learns, from nothing, in minutes on one core."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "runs" / "tiny"


@pytest.mark.slow
def test_a_language_model_learns_from_nothing_to_read_about_one_thing(tmp_path: Path) -> None:
    words = "--steps 150 --stages reading --seeds 1 --batch 10 --things 0 1 0 0 --workers 1 --capacity 8000"
    done = subprocess.run(
        [sys.executable, RECIPE / "train.py", *words.split(), "--examine", "36", "--out", tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    [scores] = [row["scores"] for row in json.loads((tmp_path / "train.json").read_text()) if "scores" in row]
    # Guessing gives some 0.3: half of what is yes or no, a sixth of the shapes, an eighth of the colours.
    assert scores["1 things"][0] >= 0.6
