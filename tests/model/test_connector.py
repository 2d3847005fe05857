"""Pooling, packing and newlines, against plain loops and hand computation."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llava_next_video.modeling_llava_next_video import (
    get_anyres_image_grid_shape,
    unpad_image,
)
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

from llava_next_video.geometry import image_layout, video_layout
from llava_next_video.model.connector import Pooler, image_order, lay_out_clips, pack_images
from llava_next_video.size import Size

POINTS = [Size(56, 112), Size(112, 56), Size(112, 112), Size(168, 56), Size(56, 168)]


def pooler(mode, stride):
    torch.manual_seed(0)
    return Pooler(mode=mode, stride=stride, width=2, out_width=2)


def test_average_pooling_is_the_mean_of_each_window():
    frame = torch.arange(16.0).repeat_interleave(2).view(1, 16, 2)  # patch n holds n, n
    # rows 0-1, columns 0-1 hold 0, 1, 4, 5
    assert pooler("average", 2)(frame, Size(4, 4))[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_maximum_pooling_is_the_largest_of_each_window():
    frame = torch.arange(16.0).repeat_interleave(2).view(1, 16, 2)
    assert pooler("max", 2)(frame, Size(4, 4))[0, :, 0].tolist() == [5, 7, 13, 15]


def test_an_odd_grid_drops_its_last_row_and_column():
    frame = torch.arange(9.0).repeat_interleave(2).view(1, 9, 2)  # rows 0 1 2 / 3 4 5 / 6 7 8
    assert pooler("average", 2)(frame, Size(3, 3))[0, :, 0].tolist() == [2.0]  # (0 + 1 + 3 + 4) / 4


def test_stride_one_keeps_every_patch():
    frame = torch.randn(2, 12, 2)
    assert torch.equal(pooler("average", 1)(frame, Size(3, 4)), frame)


@pytest.mark.parametrize(
    ("grid", "stride"), [(Size(4, 4), 2), (Size(5, 5), 2), (Size(7, 5), 3), (Size(3, 3), 2)]
)
def test_bilinear_pooling_interpolates_to_the_size_rounded_up(grid, stride):
    frames = torch.randn(2, grid.area, 2)
    planes = frames.view(2, grid.height, grid.width, 2).permute(0, 3, 1, 2)
    size = [math.ceil(grid.height / stride), math.ceil(grid.width / stride)]
    expected = F.interpolate(planes, size=size, mode="bilinear").permute(0, 2, 3, 1).reshape(2, -1, 2)
    torch.testing.assert_close(pooler("bilinear", stride)(frames, grid), expected)


def test_convolution_pooling_applies_its_kernel_to_each_window():
    conv = pooler("conv", 2)
    frame = torch.randn(1, 16, 2)
    window = frame[0].view(4, 4, 2)[2:4, 0:2]  # the third of the four windows
    expected = torch.einsum("ocij,ijc->o", conv.pool.weight, window) + conv.pool.bias
    torch.testing.assert_close(conv(frame, Size(4, 4))[0, 2], expected)


def packed_slowly(tiles, image, newline):
    """Base tile, then rows of the unpadded canvas with a newline each, one patch at a time."""
    layout = image_layout(image, POINTS, tile=56, patch=14)
    rows, columns = get_anyres_image_grid_shape(list(image), [list(point) for point in POINTS], 56)
    canvas = torch.zeros(tiles.shape[-1], rows * 4, columns * 4)
    for row in range(rows * 4):
        for column in range(columns * 4):
            tile = 1 + (row // 4) * columns + column // 4
            canvas[:, row, column] = tiles[tile, (row % 4) * 4 + column % 4]
    kept = unpad_image(canvas, list(image))
    tokens = list(tiles[0])
    for row in range(kept.shape[1]):
        tokens += [kept[:, row, column] for column in range(kept.shape[2])]
        tokens.append(newline)
    assert len(tokens) == layout.tokens
    return torch.stack(tokens)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=4))
def test_images_are_packed_as_a_slow_loop_packs_them(sizes):
    images = [Size(*size) for size in sizes]
    layouts = [image_layout(image, POINTS, tile=56, patch=14) for image in images]
    tiles = torch.randn(sum(layout.tile_count for layout in layouts), 16, 3)
    newline = torch.randn(3)
    found = pack_images(tiles, layouts, newline)
    parts = tiles.split([layout.tile_count for layout in layouts])
    for packed, part, image in zip(found, parts, images, strict=True):
        assert torch.equal(packed, packed_slowly(part, image, newline))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=4), st.integers(1, 3)
)
def test_images_beyond_a_tile_limit_are_shrunk_as_llava_onevision_shrinks_them(sizes, limit):
    images = [Size(*size) for size in sizes]
    layouts = [image_layout(image, POINTS, tile=56, patch=14, tile_limit=limit) for image in images]
    tiles = torch.randn(sum(layout.tile_count for layout in layouts), 16, 3)
    newline = torch.randn(3)

    class Theirs:
        config = SimpleNamespace(
            vision_config=SimpleNamespace(image_size=56, patch_size=14),
            image_grid_pinpoints=[list(point) for point in POINTS],
        )

    parts = tiles.split([layout.tile_count for layout in layouts])
    expected, lengths = LlavaOnevisionModel.pack_image_features(
        Theirs(), parts, [list(size) for size in sizes], newline, f"anyres_max_{limit}"
    )
    assert [layout.tokens for layout in layouts] == lengths.tolist()
    for packed, theirs in zip(pack_images(tiles, layouts, newline), expected, strict=True):
        torch.testing.assert_close(packed, theirs)


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_every_patch_of_an_image_is_used_at_most_once(height, width):
    layout = image_layout(Size(height, width), POINTS, tile=56, patch=14)
    order = image_order(layout)
    patches = order[order >= 0].tolist()
    assert len(order) == layout.tokens
    assert len(set(patches)) == len(patches) == layout.base.area + layout.kept.area
    assert max(patches) < layout.tile_count * layout.base.area


def clips_slowly(features, counts, grid, mode, newline):
    """Visual tokens of clips, one patch at a time."""
    clips, start = [], 0
    for count in counts:
        tokens = []
        for frame in features[start : start + count]:
            for patch, token in enumerate(frame):
                tokens.append(token)
                if mode == "grid" and patch % grid.width == grid.width - 1:
                    tokens.append(newline)
            if mode == "frame":
                tokens.append(newline)
        if mode == "one_token":
            tokens.append(newline)
        clips.append(torch.stack(tokens))
        start += count
    return clips


@pytest.mark.parametrize("mode", ["no_token", "one_token", "frame", "grid"])
def test_newlines_stand_where_a_slow_loop_puts_them(mode):
    counts = [2, 1, 3]
    layouts = [
        video_layout(count, tile=Size(42, 56), patch=14, stride=1, mode="average", newline=mode)
        for count in counts
    ]
    features, newline = torch.randn(6, 12, 5), torch.randn(5)
    found = lay_out_clips(features.flatten(0, 1), layouts, newline)
    expected = clips_slowly(features, counts, Size(3, 4), mode, newline)
    for clip, slow, layout in zip(found, expected, layouts, strict=True):
        assert torch.equal(clip, slow)
        assert len(clip) == layout.tokens


def test_the_gradient_of_the_newline_is_the_sum_over_its_places():
    layout = image_layout(Size(40, 90), POINTS, tile=56, patch=14)
    newline = torch.randn(3, requires_grad=True)
    tiles = torch.randn(layout.tile_count, 16, 3, requires_grad=True)
    (packed,) = pack_images(tiles, [layout], newline)
    packed.sum().backward()
    assert newline.grad.tolist() == [float(layout.kept.height)] * 3
    used = layout.base.area + layout.kept.area
    assert int(tiles.grad[..., 0].sum()) == used


@pytest.mark.parametrize("mode", ["average", "max", "bilinear"])
def test_pooling_after_the_projector_differs_from_pooling_before(make, mode):
    clip = torch.randn(1, 2, 3, 56, 56)
    before = make.ours(make.tiny(spatial_pool_mode=mode))
    after = make.ours(make.tiny(spatial_pool_mode=mode, pool_before_projector=False))
    after.load_state_dict(before.state_dict())
    with torch.no_grad():
        features = before.get_video_features(clip).last_hidden_state  # frames, patches, width
        found = after.get_video_features(clip).pooler_output[0]
        planes = after.model.multi_modal_projector(features).transpose(1, 2).unflatten(2, (4, 4))
        pool = {
            "average": lambda x: F.avg_pool2d(x, 2),
            "max": lambda x: F.max_pool2d(x, 2),
            "bilinear": lambda x: F.interpolate(x, size=(2, 2), mode="bilinear"),
        }[mode]
        torch.testing.assert_close(found, pool(planes).flatten(2).transpose(1, 2).reshape(8, 64))
        assert not torch.allclose(found, before.get_video_features(clip).pooler_output[0])


@pytest.mark.parametrize(
    ("newline", "tokens"), [("no_token", 8), ("one_token", 9), ("frame", 10), ("grid", 12)]
)
def test_a_network_gives_as_many_tokens_as_its_newline_mode_says(make, newline, tokens):
    model = make.ours(make.tiny(video_newline=newline))  # two frames of 2 x 2 patches
    with torch.no_grad():
        (clip,) = model.get_video_features(torch.randn(1, 2, 3, 56, 56)).pooler_output
        assert clip.shape == (tokens, 64)
        ids = torch.tensor([[1, *[100] * tokens, 5]])
        assert model(ids, pixel_values_videos=torch.randn(1, 2, 3, 56, 56)).logits.shape[1] == tokens + 2
