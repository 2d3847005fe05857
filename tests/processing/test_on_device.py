"""Frames that go to a device as bytes and become pixels there."""

from __future__ import annotations

import pytest
import torch

from llava_next_video.inputs import Medium
from llava_next_video.processing import LlavaNextVideoImageProcessor
from llava_next_video.processing.frames import video_pixels
from llava_next_video.processing.promise import FramePixels

SETTINGS = LlavaNextVideoImageProcessor(
    size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
).settings()


def frames() -> torch.Tensor:
    return torch.randint(
        0, 256, (5, 90, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_on_the_cpu_a_promise_gives_the_pixels_of_the_processor() -> None:
    promise = FramePixels(frames=frames(), settings=SETTINGS)
    wanted = video_pixels(frames().permute(0, 3, 1, 2), SETTINGS)
    medium = Medium(kind="video", start=0, tokens=5, key=b"k" * 32, size=None, pixels=promise)
    assert torch.equal(medium.load(), wanted)
    assert torch.equal(medium.load_on(torch.device("cpu")), wanted)


@pytest.mark.gpu
def test_on_a_gpu_a_resized_value_is_at_most_one_of_256_levels_away() -> None:
    promise = FramePixels(frames=frames(), settings=SETTINGS)
    there = promise.on(torch.device("cuda")).cpu()
    assert SETTINGS.std is not None
    level = (1 / 255) / torch.tensor(SETTINGS.std).view(3, 1, 1)
    difference = (there - promise()).abs()
    assert (difference <= 1.01 * level).all()
    assert (difference > 0.01 * level).float().mean() < 0.05
