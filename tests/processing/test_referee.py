"""Pixels and prompts against transformers' own processor on torchvision, in a process of its own."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.processing.conftest import make_processor
from tests.processing.referee import PROMPT

from llava_next_video.processing import LlavaNextVideoImageProcessor

pytestmark = pytest.mark.slow

CASES = 60


def drawn_cases() -> dict[str, np.ndarray]:
    """Clips of random shapes under random settings, and the shapes of real films."""
    draw, noise = random.Random(0), np.random.default_rng(0)
    shapes = [(draw.randint(20, 300), draw.randint(20, 300)) for _ in range(CASES)]
    shapes += [(720, 1280), (1920, 1080), (480, 854), (337, 336)]
    cases = {}
    for number, (height, width) in enumerate(shapes):
        side = 336 if number >= CASES else draw.choice([28, 56, 84, 100])
        settings = {
            "size": draw.choice([{"shortest_edge": side}, {"height": side, "width": side + 6}]),
            "crop_size": draw.choice(
                [{"height": side, "width": side}, {"height": side - 5, "width": side + 8}]
            ),
            "resample": draw.choice([2, 3, 3]),
            "do_center_crop": draw.random() < 0.8,
        }
        frames = noise.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        cases[f"{number}|{json.dumps(settings)}"] = frames
    return cases


@pytest.fixture(scope="module")
def answers(tmp_path_factory, small_tokenizer):
    """Our processor, the media, and what the referee made of them."""
    if not (Path(os.environ.get("LNV_REFEREES", ".venv/referees")) / "torchvision").is_dir():
        pytest.skip("torchvision is not at hand; name its folder in LNV_REFEREES (make test-slow does)")
    folder = tmp_path_factory.mktemp("referee")
    processor = make_processor(small_tokenizer)
    processor.save_pretrained(folder / "saved")
    noise = np.random.default_rng(1)
    given = drawn_cases()
    media = {
        "clip": noise.integers(0, 256, (8, 90, 160, 3), dtype=np.uint8),
        "picture": noise.integers(0, 256, (90, 130, 3), dtype=np.uint8),
    }
    np.savez(folder / "in.npz", **given, **media)
    script = Path(__file__).with_name("referee.py")
    command = [sys.executable, script, folder / "saved", folder / "in.npz", folder / "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return processor, {**given, **media}, dict(np.load(folder / "out.npz"))


def test_frames_have_the_bits_of_transformers(answers):
    _, given, made = answers
    for name in drawn_cases():
        ours = LlavaNextVideoImageProcessor(**json.loads(name.split("|")[1]))
        pixels = ours(given[name], return_tensors="np")["pixel_values_videos"]
        assert np.array_equal(pixels, made[name]), name


def test_transformers_reads_what_we_save_and_counts_alike(answers):
    processor, given, made = answers
    inputs = processor(text=PROMPT, images=given["picture"], videos=given["clip"], return_tensors="np")
    for name in ("input_ids", "attention_mask", "image_sizes", "pixel_values_videos"):
        assert np.array_equal(inputs[name], made[name]), name


def test_tiles_differ_from_torchvisions_by_one_level_at_most(answers):
    processor, given, made = answers
    inputs = processor(text=PROMPT, images=given["picture"], videos=given["clip"], return_tensors="np")
    one_level = 1 / 255 / min(processor.image_processor.image_std)
    assert np.abs(inputs["pixel_values"] - made["pixel_values"]).max() <= one_level * 1.001


def test_transformers_renders_our_template_alike(answers):
    assert str(answers[2]["template"]) == "USER: <video>\nWhy? ASSISTANT:"
