"""Rendered frames with dense labels for the stand-in stages."""

import math
import random

import torch
from network import CELLS, FRAME_SIZE, GRID, TILE
from torch import Tensor
from torch.nn import functional

from llava_next_video.size import Size
from llava_next_video.world.draw import draw, wear
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.scene import COLOURS, SHAPES, TEXTURES, Scene

KINDS = len(COLOURS) * len(SHAPES) + 1
COLOUR_NAMES = tuple(COLOURS)


def frame_times(rng: random.Random, frames: int) -> list[float]:
    """When the frames of a clip are looked at: evenly, with ends and steps that jitter."""
    low, high = rng.uniform(0, 0.06), rng.uniform(0.9, 1.0)
    gap = (high - low) / (frames - 1)
    return [min(max(low + gap * (i + rng.uniform(-0.12, 0.12)), 0.0), 1.0) for i in range(frames)]


def labels(
    scenes: list[Scene], times: list[list[float]], cells: int, part: tuple[int, int, int] = (0, 0, 1)
) -> Tensor:
    """What each cell sees: kind (0 nothing), offset x and y, radius, texture, place x and y.

    The shape is scenes x times x rows x columns x 7.

    `part` is the column and row of a tile, and how many tiles there are along each side.
    """
    found = torch.zeros(len(scenes), len(times[0]), cells, cells, 7)
    seen: dict[tuple[int, int, int, int], tuple[float, tuple[float, ...]]] = {}
    column, row, parts = part
    for b, scene in enumerate(scenes):
        for t, time in enumerate(times[b]):
            for thing in scene.things:
                state = thing.at(time)
                if not state.visible:
                    continue
                x, y, radius = state.x * parts - column, state.y * parts - row, state.radius * parts
                values = (
                    kind_of(state.colour, thing.shape),
                    radius * 6,
                    TEXTURES.index(thing.texture),
                    x * 3,
                    y * 3,
                )
                for j, i in covered(x, y, radius, scene.aspect, cells):
                    offset_x, offset_y = x * cells - 0.5 - i, y * cells - 0.5 - j
                    far = max(abs(offset_x), abs(offset_y))
                    if far < seen.get((b, t, j, i), (9e9,))[0]:
                        seen[b, t, j, i] = (far, (values[0], offset_x, offset_y, *values[1:]))
    if seen:
        places = torch.tensor(list(seen)).T
        found[tuple(places)] = torch.tensor([value for _, value in seen.values()])
    return found


def kind_of(colour: str, shape: str) -> int:
    """Colour and shape as one number; 0 stays free for nothing."""
    return COLOUR_NAMES.index(colour) * len(SHAPES) + SHAPES.index(shape) + 1


def covered(x: float, y: float, radius: float, aspect: float, cells: int) -> list[tuple[int, int]]:
    """Rows and columns of the cells whose middle lies on a thing, or nearly."""
    root = math.sqrt(aspect)
    wide, high = (0.8 * radius / root + 0.04) * cells, (0.8 * radius * root + 0.04) * cells
    rows = range(
        max(math.ceil(y * cells - 0.5 - high), 0), min(math.floor(y * cells - 0.5 + high), cells - 1) + 1
    )
    columns = range(
        max(math.ceil(x * cells - 0.5 - wide), 0), min(math.floor(x * cells - 0.5 + wide), cells - 1) + 1
    )
    return [(j, i) for j in rows for i in columns]


def tower_batch(rng: random.Random, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Single frames, and labels of their patches and cells; a fifth are pictures with fine patterns."""
    moving = count // 5
    scenes = [random_scene(rng) for _ in range(moving)]
    times = [[rng.random() for _ in range(4)] for _ in scenes]
    softness = [rng.uniform(0.7, 2.2) for _ in scenes]
    frames = wear(draw(scenes, times, FRAME_SIZE, softness=softness), generator).flatten(0, 1)
    patches, cells = labels(scenes, times, GRID).flatten(0, 1), labels(scenes, times, CELLS).flatten(0, 1)
    fine = [random_detail(rng) for _ in range(max(moving // 4, 1))]
    still = [[0.0]] * len(fine)
    whole = draw(fine, still, Size(2 * TILE, 2 * TILE))
    pictures, fine_patches, fine_cells = [frames], [patches], [cells]
    for column, row in ((0, 0), (1, 0), (0, 1), (1, 1)):
        tile = whole[..., row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        pictures.append(wear(tile, generator)[:, 0])
        fine_patches.append(labels(fine, still, GRID, (column, row, 2))[:, 0])
        fine_cells.append(labels(fine, still, CELLS, (column, row, 2))[:, 0])
    return torch.cat(pictures), torch.cat(fine_patches), torch.cat(fine_cells)


def small(pictures: Tensor) -> Tensor:
    """The base view of a picture: the whole of it at the size of one tile."""
    return functional.interpolate(pictures, (TILE, TILE), mode="bicubic", antialias=True).clamp(0, 1)
