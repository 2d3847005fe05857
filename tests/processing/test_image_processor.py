"""Pictures to tiles: bit by bit what transformers makes with Pillow."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media import read_image
from llava_next_video.processing import LlavaNextImageProcessor

PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
SMALL = {
    "size": {"shortest_edge": 56},
    "crop_size": {"height": 56, "width": 56},
    "image_grid_pinpoints": PINPOINTS,
}
SIZES = [(56, 56), (90, 50), (50, 91), (33, 200), (201, 34), (300, 300), (5, 3), (1, 40), (40, 1), (113, 111)]


@pytest.fixture(scope="module")
def ours():
    return LlavaNextImageProcessor(**SMALL)


@pytest.fixture(scope="module")
def theirs():
    return LlavaNextImageProcessorPil(**SMALL)


def noise(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_tiles_have_the_bits_of_transformers(ours, theirs, height, width):
    picture = noise(height, width)
    got, wanted = ours(picture, return_tensors="pt"), theirs(picture, return_tensors="pt")
    assert torch.equal(got["pixel_values"], wanted["pixel_values"])
    assert torch.equal(got["image_sizes"], wanted["image_sizes"])


@pytest.mark.parametrize(
    "changed",
    [
        {"resample": 2},
        {"do_normalize": False},
        {"do_rescale": False},
        {"size": {"height": 56, "width": 56}},
        {"size": {"shortest_edge": 64}},
        {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
        {"do_center_crop": False, "do_resize": False},
    ],
    ids=str,
)
def test_settings_of_a_call_do_what_they_do_in_transformers(ours, theirs, changed):
    picture = noise(90, 130)
    got, wanted = (
        ours(picture, return_tensors="np", **changed),
        theirs(picture, return_tensors="np", **changed),
    )
    assert np.array_equal(got["pixel_values"], wanted["pixel_values"])


def test_a_batch_is_padded_with_tiles_of_zeros(ours, theirs):
    batch = [noise(100, 100), noise(56, 112)]
    got, wanted = ours(batch, return_tensors="pt"), theirs(batch, return_tensors="pt")
    assert got["pixel_values"].shape == (2, 5, 3, 56, 56)
    assert torch.equal(got["pixel_values"], wanted["pixel_values"])
    assert not got["pixel_values"][1, 3:].any()


def test_without_padding_each_picture_keeps_its_own_tiles(ours):
    got = ours([noise(100, 100), noise(56, 112)], do_pad=False, return_tensors="pt")["pixel_values"]
    assert [len(tiles) for tiles in got] == [5, 3]


def test_the_base_tile_is_the_whole_picture_squashed(ours):
    left_white = np.zeros((56, 112, 3), dtype=np.uint8)
    left_white[:, :56] = 255
    tiles = ours(Image.fromarray(left_white), return_tensors="np", do_normalize=False)["pixel_values"][0]
    assert tiles[0][:, :, :24].min() > 0.95
    assert tiles[0][:, :, 32:].max() < 0.05
    assert tiles[1].min() == 1.0
    assert tiles[2].max() == 0.0


def test_the_same_picture_in_any_form_gives_the_same_tiles(ours, tmp_path):
    picture = noise(90, 50)
    array = np.array(picture)
    file = tmp_path / "picture.png"
    picture.save(file)
    forms = [
        array,
        np.moveaxis(array, -1, 0),
        torch.from_numpy(array),
        torch.from_numpy(array).permute(2, 0, 1),
        array.astype(np.int64),
        array / 255,
        str(file),
        file,
        file.read_bytes(),
        io.BytesIO(file.read_bytes()),
        read_image(file),
    ]
    wanted = ours(picture, return_tensors="np")["pixel_values"]
    for form in forms:
        assert np.array_equal(ours(form, return_tensors="np")["pixel_values"], wanted), type(form)


def test_lists_and_nested_lists_are_batches(ours):
    picture = noise(90, 50)
    assert len(ours([[picture], [picture, picture]])["pixel_values"]) == 3
    assert len(ours(np.stack([np.asarray(picture)] * 2))["pixel_values"]) == 2


def test_three_by_three_arrays_can_be_told_apart(ours):
    array = np.zeros((3, 3, 3), dtype=np.uint8)
    array[0] = 255
    rows = ours(array, input_data_format="channels_last", return_tensors="np", do_normalize=False)
    red = ours(array, input_data_format="channels_first", return_tensors="np", do_normalize=False)
    assert rows["pixel_values"][0, 0, :, 0].max() == 1.0
    assert red["pixel_values"][0, 0, 1].max() == 0.0
    assert red["pixel_values"][0, 0, 0].min() == 1.0


def test_grey_and_transparent_pictures_become_rgb(ours):
    grey = Image.new("L", (60, 60), 51)
    clear = Image.new("RGBA", (60, 60), (0, 0, 0, 0))
    assert ours(grey, return_tensors="np", do_normalize=False)["pixel_values"][0, 0].max() == np.float32(
        51 / 255
    )
    assert ours(clear, return_tensors="np", do_normalize=False)["pixel_values"][0, 0].min() == 1.0


def test_sizes_are_height_then_width(ours):
    assert ours(noise(90, 50), return_tensors="pt")["image_sizes"].tolist() == [[90, 50]]
    assert ours(noise(90, 50))["image_sizes"] == [(90, 50)]


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (np.zeros((4, 5, 6, 7, 3)), "height x width x channels"),
        (np.zeros((9, 9, 7), dtype=np.uint8), "7 channels"),
        (np.full((9, 9, 3), 300), "from 300 to 300"),
        (np.full((9, 9, 3), 1.5), "from 1.5 to 1.5"),
        ([], "empty"),
        (7, "int"),
    ],
)
def test_what_is_no_picture_is_named(ours, picture, sentence):
    with pytest.raises(MediaError, match=sentence):
        ours(picture)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": {"longest_edge": 5}}, "size is"),
        ({"crop_size": {"height": 56, "width": 28}}, "squares"),
        ({"crop_size": 112}, "larger than size"),
        ({"resample": 9}, "resample is 9"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_grid_pinpoints": [[60, 60]]}, "multiples of 56"),
        ({"data_format": "channels_last"}, "channels_first only"),
        ({"return_tensors": "tf"}, "torch and numpy"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_honoured_is_refused(ours, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ours(noise(56, 56), **settings)


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'crop_size'"):
        LlavaNextImageProcessor(cropsize=56)
