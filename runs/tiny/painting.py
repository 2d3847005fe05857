"""Rows of numbers to pixels, many at once, on any device: the world's own drawing without Python per scene.

`python painting.py` compares it with `llava_next_video.world.draw`.
"""

from __future__ import annotations

import math
import random

import torch
from network import GRID, TILE
from torch import Tensor
from torch.nn import functional

from llava_next_video.geometry import fitted, unpadded
from llava_next_video.size import Size
from llava_next_video.world.draw import STRIPE_PERIODS, distance, wear
from llava_next_video.world.scene import SHAPES

Rows = dict[str, Tensor]
"""Columns of `scenes.row_type`, on a device."""
CANVAS = Size(2 * TILE, 2 * TILE)
PICTURE_SIZES = (Size(120, 120), Size(120, 160), Size(160, 120), Size(120, 140), Size(140, 120))


def paint(rows: Rows, size: Size, softness: Tensor, speckles: Tensor) -> Tensor:
    """Pixels between 0 and 1: scenes x moments x 3 x height x width.

    `softness` is the width of edges in pixels, one a scene; `speckles` (scenes x 1 x 32 x 32) are the noise
    of noisy grounds.
    """
    device = rows["place"].device
    across = ((torch.arange(size.width, device=device) + 0.5) / size.width).view(1, 1, 1, -1)
    along = ((torch.arange(size.height, device=device) + 0.5) / size.height).view(1, 1, -1, 1)
    root = rows["aspect"].sqrt().view(-1, 1, 1, 1)
    moments = rows["place"].shape[2]
    frames = _ground(rows, size, speckles)[:, None].expand(-1, moments, -1, -1, -1)
    sharp = math.sqrt(size.area) / softness.view(-1, 1, 1, 1)
    for layer in range(rows["place"].shape[1]):
        x, y, radius = (rows["place"][:, layer, :, axis, None, None] for axis in range(3))
        right, down = (across - x) * root, (along - y) / root
        turn = rows["rotation"][:, layer].view(-1, 1, 1, 1)
        turned = (turn.cos() * right + turn.sin() * down, turn.cos() * down - turn.sin() * right)
        shape = rows["shape"][:, layer].view(-1, 1, 1, 1)
        far = torch.full_like(right + down, 9.0)
        for index, name in enumerate(SHAPES):
            far = torch.where(shape == index, distance(name, *turned, radius), far)
        shown = rows["visible"][:, layer, :, None, None].float()
        cover = (0.5 - far * sharp).clamp(0, 1) * shown
        colour = rows["paint"][:, layer, :, :, None, None].float()
        colour = colour * _shade(right, down, rows["texture"][:, layer], rows["fine"])[:, :, None]
        frames = frames + cover[:, :, None] * (colour - frames)
    return frames.clamp(0, 1)


def _ground(rows: Rows, size: Size, speckles: Tensor) -> Tensor:
    device = speckles.device
    across = torch.linspace(-0.5, 0.5, size.width, device=device).view(1, 1, -1)
    along = torch.linspace(-0.5, 0.5, size.height, device=device).view(1, -1, 1)
    angle, kind = rows["angle"].view(-1, 1, 1), rows["ground"].view(-1, 1, 1)
    slope = (angle.cos() * across + angle.sin() * along) / 1.42 + 0.5
    noise = functional.interpolate(speckles, tuple(size), mode="bilinear")[:, 0]
    share = torch.where(kind == 1, slope, torch.where(kind == 2, noise, torch.zeros_like(slope)))
    first, second = (rows["grounds"][:, end, :, None, None] for end in range(2))
    return first + share[:, None] * (second - first)


def _shade(right: Tensor, down: Tensor, texture: Tensor, fine: Tensor) -> Tensor:
    """Brightness of fine patterns; 1 in scenes without."""
    lines = torch.sin(2 * math.pi * STRIPE_PERIODS * down) + 0 * right
    bars = torch.sin(2 * math.pi * STRIPE_PERIODS * right) + 0 * down
    texture, wave = texture.view(-1, 1, 1, 1), torch.zeros_like(lines)
    for index, pattern in ((1, lines), (2, bars), (3, lines * bars * 1.4)):
        wave = torch.where(texture == index, pattern, wave)
    shade = 0.6 + 0.4 * wave.clamp(-1, 1)
    return torch.where(fine.view(-1, 1, 1, 1) > 0, shade, torch.ones_like(shade))


def filmed(rows: Rows) -> Tensor:
    """Clips as a camera and a codec leave them: scenes x frames x 3 x 64 x 64, pixels between 0 and 1."""
    count, device = len(rows["place"]), rows["place"].device
    softness = 0.7 + 1.5 * torch.rand(count, device=device)
    frames = paint(rows, Size(TILE, TILE), softness, torch.rand(count, 1, 32, 32, device=device))
    return wear(frames, None)


def photographed(rows: Rows, size: Size) -> Tensor:
    """Pictures of one size as base view and four tiles: scenes x 5 x 3 x 64 x 64."""
    count, device = len(rows["place"]), rows["place"].device
    inner = fitted(size, CANVAS)
    speckles = torch.rand(count, 1, 32, 32, device=device)
    whole = wear(paint(rows, inner, torch.ones(count, device=device), speckles), None)[:, 0]
    top, left = (CANVAS.height - inner.height) // 2, (CANVAS.width - inner.width) // 2
    margins = (left, CANVAS.width - inner.width - left, top, CANVAS.height - inner.height - top)
    canvas = functional.pad(whole, margins)
    base = functional.interpolate(whole, (TILE, TILE), mode="bicubic", antialias=True).clamp(0, 1)
    tiles = [canvas[..., y : y + TILE, x : x + TILE] for y in (0, TILE) for x in (0, TILE)]
    return torch.stack([base, *tiles], 1)


def kept(size: Size) -> tuple[Size, int, int]:
    """Rows and columns of patches that are no padding, and the first row and column of them."""
    found = unpadded(Size(2 * GRID, 2 * GRID), size)
    return found, (2 * GRID - found.height) // 2, (2 * GRID - found.width) // 2


def main() -> None:
    from scenes import Mix, random_scenes, tabulate
    from text import Words, make_tokenizer

    from llava_next_video.world.draw import draw

    words = Words(make_tokenizer())
    for still in (False, True):
        scenes = random_scenes(random.Random(0), 64, Mix(things=(1, 2, 3, 4), still=still))
        scenes = [scene for scene in scenes if scene.ground.kind != "noise"]
        table = tabulate(scenes, random.Random(1), [[]] * len(scenes), words, 8)
        rows = {name: torch.from_numpy(table[name].copy()) for name in table.dtype.names}
        dice, times = random.Random(1), []
        for _ in scenes:
            from scenes import frame_times

            times.append([0.0] if still else frame_times(dice))
        speckles = torch.zeros(len(scenes), 1, 32, 32)
        ours = paint(rows, Size(64, 96), torch.ones(len(scenes)), speckles)
        print("largest difference", (ours - draw(scenes, times, Size(64, 96))).abs().max().item())


if __name__ == "__main__":
    main()
