"""Pixels against the truth."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from llava_next_video.size import Size
from llava_next_video.world.draw import draw, to_bytes, wear
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.scene import HEADING, SHAPES, TEXTURES, Ground, Scene, Thing

BLACK = Ground(kind="plain", first=(0.0, 0.0, 0.0), second=(0.0, 0.0, 0.0))
FRAME = Size(96, 96)


def middle(frame: torch.Tensor, ground: tuple[float, float, float]) -> tuple[float, float]:
    """Where the pixels are that differ from a plain ground, x and y from 0 to 1."""
    far = (frame - torch.tensor(ground).view(3, 1, 1)).abs().sum(0) > 0.2
    rows, columns = far.nonzero().float().mean(0) + 0.5
    return columns.item() / frame.shape[2], rows.item() / frame.shape[1]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "ring"])
def test_the_middle_of_a_thing_has_its_colour(shape):
    thing = Thing(colour="green", shape=shape, rgb=(0.2, 0.7, 0.1), x=0.3, y=0.6, radius=0.15)
    frame = draw([Scene(things=(thing,), ground=BLACK)], [[0.0]], Size(100, 100))[0, 0]
    assert frame[:, 60, 30].tolist() == pytest.approx([0.2, 0.7, 0.1])
    assert frame[:, 5, 90].tolist() == [0.0, 0.0, 0.0]


def test_the_ground_shows_through_the_middle_of_a_ring():
    thing = Thing(colour="green", shape="ring", rgb=(0.2, 0.7, 0.1), x=0.5, y=0.5, radius=0.2)
    frame = draw([Scene(things=(thing,), ground=BLACK)], [[0.0]], Size(100, 100))[0, 0]
    assert frame[:, 50, 50].tolist() == [0.0, 0.0, 0.0]
    assert frame[1, 50, 50 + 16].item() == pytest.approx(0.7)


def test_a_circle_covers_pi_r_squared():
    thing = Thing(colour="white", shape="circle", rgb=(1.0, 1.0, 1.0), x=0.5, y=0.5, radius=0.2)
    frame = draw([Scene(things=(thing,), ground=BLACK)], [[0.0]], Size(64, 64))
    assert frame[0, 0, 0].mean().item() == pytest.approx(3.14159 * 0.2**2, rel=0.01)


@pytest.mark.parametrize("way", list(HEADING))
def test_what_is_said_to_move_moves_that_way_in_the_pixels(way):
    scene = random_scene(random.Random(3), things=1, kind=way)
    scene = Scene(things=scene.things, ground=BLACK, aspect=scene.aspect)
    before, after = (middle(frame, (0.0, 0.0, 0.0)) for frame in draw([scene], [[0.0, 1.0]], FRAME)[0])
    for moved, wanted in zip((after[0] - before[0], after[1] - before[1]), HEADING[way], strict=True):
        assert moved * wanted > 0.2 if wanted else abs(moved) < 0.02


def test_growing_covers_more_and_disappearing_leaves_the_ground():
    for kind, check in (("grow", lambda a, b: b > 2.5 * a), ("disappear", lambda a, b: a > 0 and b == 0)):
        scene = Scene(things=random_scene(random.Random(2), things=1, kind=kind).things, ground=BLACK)
        before, after = ((frame > 0.1).any(0).sum().item() for frame in draw([scene], [[0.0, 1.0]], FRAME)[0])
        assert check(before, after)


def test_a_scene_looks_the_same_at_every_size_and_in_every_batch():
    rng = random.Random(8)
    scenes = [random_scene(rng) for _ in range(6)]
    times = [[0.0, 0.5, 1.0]] * 6
    small = draw(scenes, times, Size(48, 48))
    large = torch.nn.functional.avg_pool2d(draw(scenes, times, Size(96, 96)).flatten(0, 1), 2).view_as(small)
    assert (small - large).abs().mean() < 0.01
    alone = torch.cat([draw([scene], [[0.0, 0.5, 1.0]], Size(48, 48)) for scene in scenes])
    torch.testing.assert_close(alone, small)


def test_wear_keeps_the_picture_and_follows_its_seed():
    frames = draw([random_scene(random.Random(4))], [[0.0, 1.0]], Size(48, 48))
    worn, again = (wear(frames, torch.Generator().manual_seed(7)) for _ in range(2))
    torch.testing.assert_close(worn, again)
    assert 0 < (worn - frames).abs().mean() < 0.1


def test_bytes_have_channels_last():
    frames = to_bytes(draw([random_scene(random.Random(4))] * 2, [[0.0]] * 2, Size(20, 30)))
    assert frames.shape == (2, 1, 20, 30, 3)
    assert frames.dtype == np.uint8


def test_fine_patterns_are_seen_by_tiles_but_not_by_the_base_view():
    rng = random.Random(1)
    while (scene := random_detail(rng)).things[0].texture == "plain":
        pass
    picture = Image.fromarray(to_bytes(draw([scene], [[0.0]], Size(192, 192)))[0, 0])

    def lines(side: int) -> float:
        pixels = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), float).sum(-1)
        x, y, half = scene.things[0].x * side, scene.things[0].y * side, 0.09 * side
        return pixels[int(y - half) : int(y + half), int(x - half) : int(x + half)].std()

    assert scene.things[0].texture in TEXTURES[1:]
    assert lines(96) > 4 * lines(48)


def test_no_scenes_give_no_frames():
    assert draw([], [], Size(8, 8)).shape[0] == 0
