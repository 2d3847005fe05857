"""Clips and pictures as the frozen tower sees them, rendered as training goes."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from alike import resembling
from batches import frame_times
from network import CELLS, FRAME_SIZE, FRAMES, GRID, TILE, normalised
from torch import Tensor
from torch.nn import functional

from llava_next_video.geometry import fitted, unpadded
from llava_next_video.size import Size
from llava_next_video.world.draw import draw, wear
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.scene import Scene

CANVAS = Size(2 * TILE, 2 * TILE)
PICTURE_SIZES = ((120, 120), (120, 120), (120, 160), (160, 120), (120, 140))
Weights = Sequence[float]
"""How often a scene has 0, 1, 2 or 3 things."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Scenes of one layout, when their frames were taken, and tower features: scenes x tokens x width.

    A picture has its 36 base patches first, then the rows of its tiles; `columns` is the length of such a row
    (a newline comes after each), 0 for a clip.
    """

    scenes: list[Scene]
    times: list[list[float]]
    features: Tensor
    columns: int = 0
    size: Size = FRAME_SIZE


class Source:
    """Endless clips (or pictures): every batch is looked at about `reuse` times before it is forgotten."""

    def __init__(
        self,
        tower,
        rng: random.Random,
        *,
        batch: int,
        pictures: bool,
        weights: Weights,
        alike: float = 0.0,
        reuse: int = 3,
        keep: int = 300,
    ) -> None:
        self.tower, self.rng, self.batch, self.pictures = tower, rng, batch, pictures
        self.weights, self.alike = weights, alike
        self.reuse, self.keep, self.asked = reuse, keep, 0
        self.generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
        self.batches: list[Seen] = []

    def next(self) -> Seen:
        self.asked += 1
        if len(self.batches) < 8 or self.asked % self.reuse == 0:
            how = (self.batch, self.pictures, self.weights, self.alike)
            self.batches.append(see(self.tower, self.rng, self.generator, *how))
            self.batches = self.batches[-self.keep :]
            return self.batches[-1]
        if self.pictures:
            return self.rng.choice(self.batches)
        # Clips have one layout, so that they can be shuffled anew.
        chosen = [(self.rng.choice(self.batches), self.rng.randrange(self.batch)) for _ in range(self.batch)]
        features = torch.stack([one.features[i] for one, i in chosen])
        return Seen(
            scenes=[one.scenes[i] for one, i in chosen],
            times=[one.times[i] for one, i in chosen],
            features=features,
        )


def random_clips(rng: random.Random, count: int, weights: Weights, alike: float) -> list[Scene]:
    """Scenes that move; in a share `alike` of those with several things two resemble each other."""
    numbers = rng.choices(range(4), weights, k=count)
    return [resembling(random_scene(rng, things=number), rng, alike) for number in numbers]


def random_pictures(rng: random.Random, count: int, weights: Weights, alike: float) -> list[Scene]:
    """Scenes that stand; two in five have fine patterns."""
    return [
        random_detail(rng)
        if rng.random() < 0.4
        else resembling(random_scene(rng, things=number, still=True), rng, alike)
        for number in rng.choices(range(4), weights, k=count)
    ]


@torch.no_grad()
def see(
    tower,
    rng: random.Random,
    generator: torch.Generator,
    count: int,
    pictures: bool,
    weights: Weights,
    alike: float = 0.0,
) -> Seen:
    """Fresh scenes through the tower."""
    if pictures:
        size = Size(*rng.choice(PICTURE_SIZES))
        return see_pictures(tower, generator, random_pictures(rng, count, weights, alike), size)
    scenes = random_clips(rng, count, weights, alike)
    times = [frame_times(rng, FRAMES) for _ in scenes]
    softness = [rng.uniform(0.7, 2.2) for _ in scenes]
    frames = wear(draw(scenes, times, FRAME_SIZE, softness=softness), generator)
    return Seen(scenes=scenes, times=times, features=clip_features(tower, normalised(frames)))


def clip_features(tower, pixels: Tensor) -> Tensor:
    """Pooled features: clips x (frames x cells) x width."""
    patches = tower(pixels.flatten(0, 1)).last_hidden_state[:, 1:]
    grid = patches.unflatten(1, (GRID, GRID)).movedim(-1, 1)
    pooled = functional.avg_pool2d(grid, 2).flatten(2).mT
    return pooled.reshape(len(pixels), -1, CELLS**2, pooled.shape[-1]).flatten(1, 2)


def see_pictures(tower, generator: torch.Generator, scenes: list[Scene], size: Size) -> Seen:
    """Pictures of one size as base view and tiles, padding removed."""
    still = [[0.0]] * len(scenes)
    inner = fitted(size, CANVAS)
    whole = wear(draw(scenes, still, inner), generator)[:, 0]
    top, left = (CANVAS.height - inner.height) // 2, (CANVAS.width - inner.width) // 2
    margins = (left, CANVAS.width - inner.width - left, top, CANVAS.height - inner.height - top)
    canvas = functional.pad(whole, margins)
    base = functional.interpolate(whole, (TILE, TILE), mode="bicubic", antialias=True).clamp(0, 1)
    tiles = [canvas[..., y : y + TILE, x : x + TILE] for y in (0, TILE) for x in (0, TILE)]
    views = torch.stack([base, *tiles], 1)
    patches = tower(normalised(views).flatten(0, 1)).last_hidden_state[:, 1:].unflatten(0, (len(scenes), 5))
    grid = patches[:, 1:].unflatten(2, (GRID, GRID)).unflatten(1, (2, 2))
    grid = grid.movedim(3, 2).flatten(1, 2).flatten(2, 3)
    kept = unpadded(Size(2 * GRID, 2 * GRID), size)
    y, x = (2 * GRID - kept.height) // 2, (2 * GRID - kept.width) // 2
    grid = grid[:, y : y + kept.height, x : x + kept.width]
    features = torch.cat([patches[:, 0], grid.flatten(1, 2)], 1)
    return Seen(scenes=scenes, times=still, features=features, columns=kept.width, size=size)


def embed(network, seen: Seen) -> Tensor:
    """Features as the language model reads them: projected, with a newline after each row of tiles."""
    projected = network.model.multi_modal_projector(seen.features)
    if not seen.columns:
        return projected
    base, rows = projected[:, : GRID**2], projected[:, GRID**2 :].unflatten(1, (-1, seen.columns))
    newline = network.model.image_newline.expand(*rows.shape[:2], 1, -1)
    return torch.cat([base, torch.cat([rows, newline], 2).flatten(1, 2)], 1)
