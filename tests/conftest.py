"""What every test gets: shape checks switched on, a random checkpoint, a clip."""

import os
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook

# Two workers share two cores; threads that wait for each other would double the time. Torch reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Where there is no GPU, Triton interprets kernels; it decides when it is first imported, by whomever.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

install_import_hook("llava_next_video", "beartype.beartype")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the tiny preset; nobody may write into it."""
    from llava_next_video.convert import PRESETS, write_random

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_random(folder, PRESETS["tiny"])
    return folder


@pytest.fixture(scope="session")
def square_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An H.264 clip of 24 frames, 12 a second, in which a bright square moves to the right."""
    from llava_next_video.media import write_clip

    frames = np.full((24, 72, 96, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        left = number * (96 - 16) // len(frames)
        frame[20:36, left : left + 16] = (220, 60, 30)
    return write_clip(tmp_path_factory.mktemp("clips") / "square.mp4", frames, 12)
