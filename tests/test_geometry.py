"""Token counts, against the release's own arithmetic and against transformers."""

import random
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlavaNextVideoProcessor as HubProcessor
from transformers import LlavaOnevisionProcessor as OnevisionProcessor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from llava_next_video.errors import ConfigError
from llava_next_video.geometry import (
    best_canvas,
    fitted,
    image_layout,
    pooled,
    unpadded,
    video_layout,
)
from llava_next_video.size import Size

RELEASED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
POINTS = [Size(*pair) for pair in RELEASED]
SIDES = st.integers(1, 4000)
SIZES = st.builds(Size, SIDES, SIDES)


class Pinpoints:
    image_grid_pinpoints = RELEASED


def hub_count(image: Size) -> int:
    """What transformers' own processor counts for a released checkpoint."""
    hub = object.__new__(HubProcessor)
    hub.image_processor = Pinpoints()
    hub.patch_size = 14
    hub.num_additional_image_tokens = 1
    return hub._get_number_of_features(*image, 336, 336) - 1


@pytest.mark.parametrize(
    ("height", "width", "tiles", "tokens"),
    [
        (336, 336, 3, 1176),
        (480, 640, 5, 2340),
        (640, 480, 5, 2352),
        (720, 1280, 5, 1948),
        (1080, 1920, 5, 1948),
        (1920, 1080, 5, 1968),
        (1000, 1000, 5, 2928),
        (1, 1000, 4, 576),
        (1000, 1, 4, 648),
    ],
)
def test_pictures_have_the_token_counts_of_the_released_checkpoints(height, width, tiles, tokens):
    layout = image_layout(Size(height, width), POINTS, tile=336, patch=14)
    assert (layout.tile_count, layout.tokens) == (tiles, tokens)


def test_thousands_of_sizes_count_as_many_tokens_as_in_transformers():
    draw = random.Random(0)
    for _ in range(2000):
        image = Size(draw.randint(1, 3000), draw.randint(1, 3000))
        assert image_layout(image, POINTS, tile=336, patch=14).tokens == hub_count(image), image


@given(image=SIZES, limit=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_a_picture_beyond_a_tile_limit_counts_as_in_llava_onevision(image, limit):
    grids = [Size(rows * 384, columns * 384) for rows in range(1, 7) for columns in range(1, 7)]
    theirs = object.__new__(OnevisionProcessor)
    theirs.image_processor = SimpleNamespace(image_grid_pinpoints=[list(grid) for grid in grids])
    theirs.num_image_tokens, theirs.vision_aspect_ratio = 27 * 27, f"anyres_max_{limit}"
    layout = image_layout(image, grids, tile=384, patch=14, tile_limit=limit)
    assert layout.tokens == theirs._get_number_of_features(*image, 384, 384)


@given(image=SIZES)
@settings(max_examples=100, deadline=None)
def test_a_picture_is_cut_as_in_transformers(image):
    layout = image_layout(image, POINTS, tile=336, patch=14)
    assert layout.tokens == hub_count(image)
    assert layout.tile_count == image_size_to_num_patches(list(image), RELEASED, 336)
    assert tuple(layout.tiles) == get_anyres_image_grid_shape(list(image), RELEASED, 336)


@given(image=SIZES, order=st.permutations(RELEASED))
@settings(max_examples=100, deadline=None)
def test_the_best_canvas_is_that_of_transformers_in_any_order(image, order):
    assert tuple(best_canvas(image, [Size(*pair) for pair in order])) == tuple(
        select_best_resolution(list(image), order)
    )


@given(image=st.builds(Size, st.integers(1, 300), st.integers(1, 300)), canvas=st.sampled_from(POINTS))
@settings(max_examples=50, deadline=None)
def test_a_picture_fits_its_canvas_as_in_transformers(image, canvas):
    wanted = get_patch_output_size(torch.empty(3, *image), tuple(canvas), "channels_first")
    assert tuple(fitted(image, canvas)) == tuple(wanted)


@given(image=SIZES, rows=st.integers(1, 80), columns=st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_padding_is_removed_as_in_transformers(image, rows, columns):
    features = unpad_image(torch.empty(1, rows, columns), list(image))
    assert tuple(unpadded(Size(rows, columns), image)) == tuple(features.shape[1:])


def test_equal_canvases_go_to_the_first_one():
    square = Size(336, 336)
    assert best_canvas(square, [Size(336, 672), Size(672, 336)]) == Size(336, 672)
    assert best_canvas(square, [Size(672, 336), Size(336, 672)]) == Size(672, 336)


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [(8, 8 * 144), (16, 16 * 144), (32, 4608)],
)
def test_a_frame_of_the_released_checkpoints_is_144_tokens(frames, tokens):
    layout = video_layout(frames, tile=336, patch=14, stride=2, mode="average", newline="no_token")
    assert layout.tokens == tokens


@pytest.mark.parametrize(
    ("newline", "mode", "tokens"),
    [
        ("no_token", "average", 10 * 13 * 13),
        ("one_token", "average", 10 * 13 * 13 + 1),
        ("frame", "average", 10 * (13 * 13 + 1)),
        ("grid", "average", 10 * 13 * 14),
        ("grid", "bilinear", 10 * 14 * 15),
    ],
)
def test_newlines_stand_where_the_mode_says(newline, mode, tokens):
    layout = video_layout(10, tile=378, patch=14, stride=2, mode=mode, newline=newline)
    assert layout.tokens == tokens


@given(
    grid=st.builds(Size, st.integers(1, 30), st.integers(1, 30)),
    stride=st.integers(1, 5),
    mode=st.sampled_from(["average", "max"]),
)
@settings(max_examples=40, deadline=None)
def test_pooling_leaves_what_torch_leaves(grid, stride, mode):
    pool = torch.nn.AvgPool2d(stride) if mode == "average" else torch.nn.MaxPool2d(stride)
    if min(grid) < stride:
        with pytest.raises(ConfigError, match="leaves nothing"):
            pooled(grid, stride, mode)
    else:
        assert tuple(pooled(grid, stride, mode)) == tuple(pool(torch.empty(1, 1, *grid)).shape[2:])


def test_frames_need_not_be_square():
    layout = video_layout(3, tile=Size(28, 56), patch=14, stride=2, mode="average", newline="no_token")
    assert (layout.grid, layout.tokens) == (Size(1, 2), 6)


def test_impossible_shapes_are_refused_with_the_way_out():
    with pytest.raises(ConfigError, match="multiples of 336"):
        image_layout(Size(10, 10), [Size(300, 300)], tile=336, patch=14)
    with pytest.raises(ConfigError, match="at least one"):
        best_canvas(Size(10, 10), [])
    with pytest.raises(ConfigError, match="holds no patch"):
        video_layout(1, tile=7, patch=14, stride=1, mode="average", newline="no_token")
    with pytest.raises(ConfigError, match="at least 1"):
        pooled(Size(24, 24), 0, "average")
    with pytest.raises(ValueError, match="at least one frame"):
        video_layout(0, tile=28, patch=14, stride=1, mode="average", newline="no_token")
    with pytest.raises(ValueError, match="at least one pixel"):
        image_layout(Size(0, 10), POINTS, tile=336, patch=14)
