"""Pixels of clips: against plain torch on whole frames, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from llava_next_video.errors import ConfigError
from llava_next_video.processing.frames import resized, video_pixels
from llava_next_video.processing.settings import CLIP_MEAN, CLIP_STD, PixelSettings
from llava_next_video.size import Size

SIDES = st.integers(8, 150)


def make_settings(**changed):
    usual = {
        "shortest_edge": 28,
        "exact": None,
        "resample": "bicubic",
        "crop": Size(28, 28),
        "rescale": 1 / 255,
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "convert_rgb": True,
    }
    return PixelSettings(**(usual | changed))


def noise(count, height, width, seed=0):
    """Frames as a decoder gives them: channels last in memory."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@given(
    height=SIDES,
    width=SIDES,
    edge=st.sampled_from([28, 40, 60]),
    crop=st.sampled_from([Size(28, 28), Size(20, 26)]),
    resample=st.sampled_from(["bilinear", "bicubic"]),
)
@settings(max_examples=60, deadline=None)
def test_cropping_first_gives_the_bits_of_resizing_everything(height, width, edge, crop, resample):
    rule = make_settings(shortest_edge=edge, crop=crop, resample=resample, rescale=None, mean=None, std=None)
    frames = noise(2, height, width)
    whole = rule.resized(Size(height, width))
    everything = interpolate(frames, size=tuple(whole), mode=resample, antialias=True)
    top, left = (whole.height - crop.height) // 2, (whole.width - crop.width) // 2
    cut = everything[..., top : top + crop.height, left : left + crop.width]
    assert torch.equal(video_pixels(frames, rule), cut)


def test_the_shortest_edge_is_resized_and_the_longer_rounded_down():
    rule = make_settings(shortest_edge=336)
    assert rule.resized(Size(720, 1280)) == Size(336, int(336 * 1280 / 720)) == Size(336, 597)
    assert rule.resized(Size(1280, 720)) == Size(597, 336)
    assert rule.resized(Size(50, 50)) == Size(336, 336)


def test_a_grey_frame_is_grey_minus_mean_over_deviation():
    frames = torch.full((1, 3, 40, 60), 51, dtype=torch.uint8)
    pixels = video_pixels(frames, make_settings())
    for channel in range(3):
        wanted = (51 / 255 - CLIP_MEAN[channel]) / CLIP_STD[channel]
        assert pixels[0, channel].unique().tolist() == pytest.approx([wanted], abs=1e-6)


def test_frames_smaller_than_the_crop_stand_on_black():
    frames = torch.full((1, 3, 3, 4), 255, dtype=torch.uint8)
    plain = make_settings(shortest_edge=None, crop=Size(8, 9), rescale=None, mean=None, std=None)
    pixels = video_pixels(frames, plain)
    # 5 rows are missing: 2 above, 3 below; 5 columns: 2 left, 3 right.
    wanted = torch.zeros(1, 3, 8, 9, dtype=torch.uint8)
    wanted[..., 2:5, 2:6] = 255
    assert torch.equal(pixels, wanted)


def test_padding_is_black_before_the_normalisation():
    frames = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    pixels = video_pixels(frames, make_settings(shortest_edge=None, crop=Size(6, 6)))
    assert pixels[0, 0, 0, 0].item() == pytest.approx(-CLIP_MEAN[0] / CLIP_STD[0], abs=1e-6)


def test_memory_order_does_not_change_a_bit():
    frames = noise(2, 70, 90)
    assert torch.equal(
        video_pixels(frames, make_settings()), video_pixels(frames.contiguous(), make_settings())
    )


@pytest.mark.parametrize(
    ("changed", "kind", "top"),
    [
        ({"mean": None, "std": None}, torch.float32, 1.0),
        ({"rescale": None, "mean": None, "std": None}, torch.uint8, 255),
        ({"rescale": None, "mean": (0.0,) * 3, "std": (1.0,) * 3}, torch.float32, 255.0),
    ],
)
def test_each_step_can_be_left_out(changed, kind, top):
    pixels = video_pixels(torch.full((1, 3, 30, 30), 255, dtype=torch.uint8), make_settings(**changed))
    assert pixels.dtype == kind
    assert pixels.amax().item() == pytest.approx(top)


def test_floats_are_resized_as_floats():
    frames = noise(1, 60, 80).float() / 255
    whole = interpolate(frames, size=(28, 37), mode="bicubic", antialias=True)[..., 4:32]
    plain = make_settings(rescale=None, mean=None, std=None)
    assert torch.allclose(video_pixels(frames, plain), whole, atol=1e-6)


def test_nearest_takes_whole_pixels():
    frames = noise(1, 60, 60)
    assert torch.equal(resized(frames, Size(20, 20), "nearest"), frames[..., 1::3, 1::3])


def test_filters_that_torch_lacks_are_refused():
    with pytest.raises(ConfigError, match="for pictures only"):
        resized(noise(1, 20, 20), Size(10, 10), "hamming")
