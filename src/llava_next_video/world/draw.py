"""Scenes to pixels, many at once, at any size, on any device.

Edges are anti-aliased by signed distance; the same scene looks the same at every size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from llava_next_video.size import Size
from llava_next_video.world.scene import SHAPES, TEXTURES, Scene

_SPECKLES = 32
STRIPE_PERIODS = 40.0


def draw(
    scenes: Sequence[Scene],
    times: Sequence[Sequence[float]],
    size: Size,
    *,
    softness: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "scenes times 3 height width"]:
    """Pixels between 0 and 1 of each scene at its own times (equally many for all).

    `softness` is the width of a thing's edge in pixels, one number per scene, 1 when not given.
    """
    if not scenes:
        return torch.zeros(0, 0, 3, size.height, size.width, device=device)
    aspects = torch.tensor([scene.aspect for scene in scenes], device=device)
    frames = _grounds(scenes, size, device)[:, None].expand(-1, len(times[0]), -1, -1, -1).clone()
    rows, numbers, paints, kinds = _states(scenes, times)
    if not rows:
        return frames
    # One entry per thing per scene; later things of a scene lie over earlier ones.
    states = torch.tensor(numbers, dtype=torch.float32, device=device)
    colours = torch.tensor(paints, dtype=torch.float32, device=device)
    owners = torch.tensor([row[0] for row in rows], device=device)
    aspect = aspects[owners].view(-1, 1, 1, 1)
    across = ((torch.arange(size.width, device=device) + 0.5) / size.width).view(1, 1, 1, -1)
    along = ((torch.arange(size.height, device=device) + 0.5) / size.height).view(1, 1, -1, 1)
    centre_x, centre_y, radius, shown = (states[..., i, None, None] for i in range(4))
    right = (across - centre_x) * aspect.sqrt()
    down = (along - centre_y) / aspect.sqrt()
    turn = torch.tensor([kind[2] for kind in kinds], device=device).view(-1, 1, 1, 1)
    x, y = turn.cos() * right + turn.sin() * down, turn.cos() * down - turn.sin() * right
    pixels = math.sqrt(size.area)
    soft = torch.tensor(softness or [1.0] * len(scenes), device=device)[owners].view(-1, 1, 1, 1)
    cover = torch.zeros(len(rows), len(times[0]), size.height, size.width, device=device)
    shapes = torch.tensor([kind[0] for kind in kinds], device=device)
    for shape, name in enumerate(SHAPES):
        chosen = (shapes == shape).nonzero()[:, 0]
        if len(chosen):
            far = distance(name, x[chosen], y[chosen], radius[chosen])
            cover[chosen] = (0.5 - far * pixels / soft[chosen]).clamp(0, 1) * shown[chosen]
    shade = _shade(right, down, [kind[1] for kind in kinds])
    for layer in range(max(row[1] for row in rows) + 1):
        chosen = torch.tensor([i for i, row in enumerate(rows) if row[1] == layer], device=device)
        scene = owners[chosen]
        paint = colours[chosen][..., None, None]
        if shade is not None:
            paint = paint * shade[chosen][:, :, None]
        mask = cover[chosen][:, :, None]
        frames[scene] = frames[scene] + mask * (paint - frames[scene])
    return frames.clamp_(0, 1)


def to_bytes(frames: Float[Tensor, "*frames 3 height width"]) -> UInt8[np.ndarray, "*frames height width 3"]:
    """Pixels as the rest of the package wants them: rows of red, green, blue bytes."""
    return np.ascontiguousarray((frames * 255).round().to(torch.uint8).movedim(-3, -1).cpu().numpy())


def wear(
    frames: Float[Tensor, "scenes times 3 height width"], generator: torch.Generator | None
) -> Float[Tensor, "scenes times 3 height width"]:
    """What a camera and a codec do to a clip: coarse colour, another exposure, noise.

    Without a generator the dice are those of the device.
    """
    scenes, device = len(frames), frames.device

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(scenes, 1, 1, 1, 1, generator=generator, device=device)

    height, width = frames.shape[-2:]
    if height % 2 == 0 and width % 2 == 0:
        light = 0.299 * frames[:, :, 0:1] + 0.587 * frames[:, :, 1:2] + 0.114 * frames[:, :, 2:3]
        blocks = (frames - light).view(*frames.shape[:3], height // 2, 2, width // 2, 2)
        coarse = blocks.mean((-3, -1), keepdim=True).expand_as(blocks).reshape(frames.shape)
        frames = torch.lerp(frames, light + coarse, (drawn(0.0, 1.0) < 0.5).float())
    noise = torch.randn(frames.shape, generator=generator, device=device)
    return (frames * drawn(0.94, 1.06) + drawn(-0.03, 0.03) + noise * drawn(0.0, 0.03)).clamp_(0, 1)


def _states(
    scenes: Sequence[Scene], times: Sequence[Sequence[float]]
) -> tuple[list[tuple[int, int]], list[object], list[object], list[tuple[int, int, float]]]:
    rows: list[tuple[int, int]] = []
    numbers: list[object] = []
    paints: list[object] = []
    kinds: list[tuple[int, int, float]] = []
    for index, scene in enumerate(scenes):
        for layer, thing in enumerate(scene.things):
            states = [thing.at(time) for time in times[index]]
            rows.append((index, layer))
            numbers.append([(s.x, s.y, s.radius, float(s.visible)) for s in states])
            paints.append([s.rgb for s in states])
            kinds.append(
                (
                    SHAPES.index(thing.shape),
                    TEXTURES.index(thing.texture) if scene.fine else -1,
                    thing.rotation,
                )
            )
    return rows, numbers, paints, kinds


def _grounds(
    scenes: Sequence[Scene], size: Size, device: torch.device | str
) -> Float[Tensor, "scenes 3 height width"]:
    first = torch.tensor([scene.ground.first for scene in scenes], device=device).view(-1, 3, 1, 1)
    second = torch.tensor([scene.ground.second for scene in scenes], device=device).view(-1, 3, 1, 1)
    share = torch.zeros(len(scenes), 1, size.height, size.width, device=device)
    across = torch.linspace(-0.5, 0.5, size.width, device=device).view(1, -1)
    along = torch.linspace(-0.5, 0.5, size.height, device=device).view(-1, 1)
    for index, scene in enumerate(scenes):
        ground = scene.ground
        if ground.kind == "gradient":
            share[index, 0] = (math.cos(ground.angle) * across + math.sin(ground.angle) * along) / 1.42 + 0.5
        elif ground.kind == "noise":
            speckles = np.random.default_rng(ground.seed).random(
                (1, 1, _SPECKLES, _SPECKLES), dtype=np.float32
            )
            share[index] = functional.interpolate(torch.from_numpy(speckles), tuple(size), mode="bilinear")[0]
    return first + share * (second - first)


def _shade(
    right: Float[Tensor, "things times 1 width"],
    down: Float[Tensor, "things times height 1"],
    textures: Sequence[int],
) -> Float[Tensor, "things times height width"] | None:
    """Brightness of fine patterns (as dark on average as their plain rival), or None in scenes without."""
    if max(textures) < 0:
        return None
    shade = torch.ones_like(right + down)
    for index, texture in enumerate(textures):
        lines = torch.sin(2 * math.pi * STRIPE_PERIODS * down[index])
        bars = torch.sin(2 * math.pi * STRIPE_PERIODS * right[index])
        if texture >= 0:
            wave = (0 * lines, lines, bars, lines * bars * 1.4)[texture]
            shade[index] = 0.6 + 0.4 * wave.clamp(-1, 1)
    return shade


def distance(
    shape: str,
    x: Float[Tensor, "things times height width"],
    y: Float[Tensor, "things times height width"],
    radius: Float[Tensor, "things times 1 1"],
) -> Float[Tensor, "things times height width"]:
    """How far each pixel is outside a shape (negative inside)."""
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "ring":
        return (torch.hypot(x, y) - 0.78 * radius).abs() - 0.26 * radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.86 * radius
    if shape == "triangle":
        slope, half = math.cos(math.pi / 6), 0.5
        return torch.maximum(torch.maximum(y, slope * x - half * y), -slope * x - half * y) - 0.6 * radius
    if shape == "cross":
        a, b, thick = x.abs(), y.abs(), 0.34 * radius
        return torch.minimum(torch.maximum(a - radius, b - thick), torch.maximum(b - radius, a - thick))
    # A five-pointed star: fold the plane into one half of one point, then the line of its edge.
    part = math.pi / 5
    around = (torch.remainder(torch.atan2(x, -y) + part, 2 * part) - part).abs()
    far = torch.hypot(x, y)
    inner_x, inner_y = 0.42 * math.cos(part), 0.42 * math.sin(part)
    length = math.hypot(inner_y, 1 - inner_x)
    return (far * around.cos() - 1.18 * radius) * (inner_y / length) + far * around.sin() * (
        (1 - inner_x) / length
    )
