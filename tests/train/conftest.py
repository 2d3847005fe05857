"""A tiny checkpoint and a few frame folders to learn from."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_next_video.convert.presets import PRESETS
from llava_next_video.convert.random import write_random

CLIPS = 4


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 263 thousand parameters with its processor."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_random(folder, PRESETS["tiny"], seed=1)
    return folder


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame folders clip0..3 with three frames each, and one file of samples: clips and pictures, mixed."""
    root = tmp_path_factory.mktemp("media")
    chance = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for clip in range(CLIPS):
        folder = root / f"clip{clip}"
        folder.mkdir()
        for frame in range(3):
            pixels = chance.integers(0, 255, (56, 56, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{frame}.png")
        said = [("What moves?", f"A circle, {clip} times."), ("Which way does it go?", "To the left.")]
        for number, (question, answer) in enumerate(said):
            rows.append(row(f"clip{clip}-{number}", "video", folder.name, question, answer))
        rows.append(row(f"picture{clip}", "image", f"{folder.name}/0.png", "What is it?", f"Square {clip}."))
    (root / "samples.json").write_text(json.dumps(rows))
    return root


def row(name: str, kind: str, path: str, question: str, answer: str) -> dict[str, object]:
    """A sample as LLaVA spells it."""
    conversation = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, kind: path, "conversations": conversation}
