"""What each stage learns from: losses, one number a seed.

Every function takes rows of numbers of seeds x rows scenes and gives the loss of each seed and what to print.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from facts import EXCLUSIVE, FACTS, STRENGTH, clip_facts, directions, part, picture_facts
from network import CELLS, FRAMES, GRID, LAYERS, VISION
from networks import Model, Turning, linear
from painting import Rows, filmed, photographed
from scenes import COLOUR_NAMES, THINGS
from text import UNKNOWN
from torch import Tensor, nn
from torch.nn import functional

from llava_next_video.size import Size
from llava_next_video.world.scene import SHAPES, TEXTURES

DEPTH = 3
"""After so many layers the stand-ins know, or are told, what is true under each visual token."""
PICTURE_TOKENS = GRID**2 + 2 * GRID * (2 * GRID + 1)
"""Visual tokens of a square picture; others are filled up, so that all have one shape."""
LATE, EARLY, BARE = 9, 4, 3
"""So many tokens with things (late and early) and without are told of each scene."""
KINDS = len(COLOUR_NAMES) * len(SHAPES) + 1
_SPLIT = (KINDS, len(COLOUR_NAMES) + 1, len(SHAPES) + 1, 5, len(TEXTURES))
NOBODY = -2
"""The number of tokens that no dialogue sees."""

Told = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Tokens behind what is seen: seeds x rows x tokens."""

    ids: Tensor
    labels: Tensor
    positions: Tensor
    dialogues: Tensor
    weights: Tensor

    @classmethod
    def of(cls, rows: Rows, seeds: int) -> Text:
        names = {"ids": "id", "labels": "label", "positions": "position", "dialogues": "dialogue"}
        parts = {ours: rows[theirs].long().unflatten(0, (seeds, -1)) for ours, theirs in names.items()}
        return cls(**parts, weights=rows["weight"].float().unflatten(0, (seeds, -1)))


def mean(values: Tensor, where: Tensor | None = None) -> Tensor:
    """The mean for each seed of all values, or of those `where` something holds."""
    if where is None:
        return values.flatten(1).mean(1)
    where = where.expand_as(values).to(values.dtype)
    return (values * where).flatten(1).sum(1) / where.flatten(1).sum(1).clamp_min(1)


# The tower


class Heads(nn.Module):
    """What the tower is asked at its patches and its pooled cells; thrown away after its stage."""

    def __init__(self, seeds: int) -> None:
        super().__init__()
        for name in ("patch", "cell"):
            self.register_parameter(
                name, nn.Parameter(torch.randn(seeds, sum(_SPLIT), VISION) * VISION**-0.5)
            )
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(seeds, sum(_SPLIT))))


def single_frames(rows: Rows) -> Rows:
    """One moment of each clip, drawn at random."""
    count = len(rows["place"])
    moment = torch.randint(FRAMES, (count, 1, 1), device=rows["place"].device).expand(-1, THINGS, 1)
    found = dict(rows)
    for name in ("visible", "colour"):
        found[name] = rows[name].gather(2, moment)
    for name in ("place", "paint"):
        found[name] = rows[name].gather(2, moment[..., None].expand(-1, -1, -1, 3))
    return found


def labels(rows: Rows, side: int, tile: tuple[int, int, int] = (0, 0, 1)) -> Tensor:
    """What each place sees: kind (0 nothing), offset x and y, radius, texture, place x and y.

    The shape is scenes x places x 7; `tile` is column and row of a tile, and how many there are a side.
    """
    column, row, parts = tile
    device = rows["place"].device
    middles = (torch.arange(side, device=device) + 0.5) / side
    cells = torch.stack(torch.meshgrid(middles, middles, indexing="xy"), -1).flatten(0, 1)
    x, y, radius = (rows["place"][:, :, 0] * parts).unbind(-1)
    place = torch.stack([x - column, y - row, radius], -1)
    away = place[:, :, None, :2] - cells
    far = away.abs().amax(-1)
    root, radius = rows["aspect"].sqrt().view(-1, 1, 1), place[..., 2:]
    inside = (away[..., 0].abs() <= 0.8 * radius / root + 0.04) & (
        away[..., 1].abs() <= 0.8 * radius * root + 0.04
    )
    inside &= (rows["visible"][:, :, :1] > 0) & (rows["shape"][:, :, None] >= 0)
    least, owner = torch.where(inside, far, 9.0).min(1)
    kind = rows["colour"][:, :, 0].long() * len(SHAPES) + rows["shape"].long() + 1
    values = torch.stack(
        [kind.float(), radius[..., 0] * 6, rows["texture"].float(), place[..., 0] * 3, place[..., 1] * 3], -1
    )
    values = values.gather(1, owner[..., None].expand(-1, -1, 5))
    offset = (away * side).gather(1, owner[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
    found = torch.cat([values[..., :1], offset, values[..., 1:]], -1)
    return torch.where((least < 9.0)[..., None], found, 0.0)


def tower_loss(model: Model, heads: Heads, clips: Rows, pictures: Rows, film=filmed) -> tuple[Tensor, Told]:
    """Single frames, and the views of square pictures, with what stands at each place."""
    seeds = model.networks.seeds
    frames = single_frames(clips)
    views = photographed(pictures, Size(120, 120))
    tiles = [(0, 0, 1), *((column, row, 2) for row in (0, 1) for column in (0, 1))]
    pixels = torch.cat([_by_seed(film(frames), seeds), _by_seed(views, seeds)], 1)
    patches = model.patches(pixels)
    cells = patches.unflatten(2, (CELLS, 2, CELLS, 2)).mean((3, 5)).flatten(2, 3)
    fine = torch.zeros(seeds, pixels.shape[1], dtype=torch.bool, device=model.device)
    of_views = (pictures["fine"] > 0).unflatten(0, (seeds, -1))[..., None].expand(-1, -1, 5).clone()
    of_views[..., 0] = False
    fine[:, -of_views[0].numel() :] = of_views.flatten(1)
    loss, told = torch.zeros(seeds, device=model.device), {}
    for name, side, features in (("patch", GRID, patches), ("cell", CELLS, cells)):
        said = linear(features.to(model.half), heads.get_parameter(name), heads.get_parameter(f"{name}_bias"))
        of_tiles = torch.stack([labels(pictures, side, tile) for tile in tiles], 1)
        truth = torch.cat([labels(frames, side).unflatten(0, (seeds, -1)), _by_seed(of_tiles, seeds)], 1)
        one, shares = _judge(said.float(), truth, fine)
        loss = loss + one
        told |= {f"{name} {key}": share for key, share in shares.items()}
    return loss, told


def _by_seed(views: Tensor, seeds: int) -> Tensor:
    """Scenes x views x ... as seeds x (scenes and views) x ..."""
    return views.unflatten(0, (seeds, -1)).flatten(1, 2)


def _judge(said: Tensor, truth: Tensor, fine: Tensor) -> tuple[Tensor, Told]:
    kind, here = truth[..., 0].long(), truth[..., 0] > 0
    # The parts are learnt long before their conjunction.
    colour = torch.where(here, (kind - 1) // len(SHAPES) + 1, 0)
    shape = torch.where(here, (kind - 1) % len(SHAPES) + 1, 0)
    kinds, colours, shapes, offsets, textures = said.split(_SPLIT, -1)
    loss = torch.zeros(len(said), device=said.device)
    for logits, wanted in ((kinds, kind), (colours, colour), (shapes, shape)):
        losses = _cross_entropy(logits, wanted)
        # Things are few: they count once more for themselves.
        loss = loss + 0.5 * mean(losses) + 0.3 * mean(losses, here)
    wanted = torch.cat([truth[..., 1:4], truth[..., 5:7]], -1)
    loss = loss + mean((offsets - wanted).square(), here[..., None])
    textured, texture = here & fine[..., None], truth[..., 4].long().clamp_min(0)
    loss = loss + 0.5 * mean(_cross_entropy(textures, texture), textured)
    return loss, {
        "kind": mean((kinds.argmax(-1) == kind).float(), here),
        "empty": mean((kinds.argmax(-1) == kind).float(), ~here),
        "texture": mean((textures.argmax(-1) == texture).float(), textured),
    }


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    flat = functional.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none")
    return flat.view(wanted.shape)


# The language model


class Seen:
    """Scenes through the frozen tower and the projector, and what is true under each visual token."""

    def __init__(
        self, model: Model, rows: Rows, size: Size | None, film=filmed, *, tiled: bool = True
    ) -> None:
        """Clips where `size` is None, else pictures of that size; without tiles just their base view."""
        self.rows, self.size, self.tiled, seeds = rows, size, tiled, model.networks.seeds
        with torch.no_grad():
            pixels = film(rows) if size is None else photographed(rows, size)
            pixels = pixels if size is None or tiled else pixels[:, :1]
            patches = model.patches(_by_seed(pixels, seeds))
        if size is None:
            visual = model.seen_clips(patches, rows["place"].shape[2])
        else:
            visual = model.seen_pictures(patches, size) if tiled else model.project(patches)
        self.tokens = visual.shape[2]
        room = self.tokens if size is None or not tiled else PICTURE_TOKENS
        self.visual = functional.pad(visual, (0, 0, 0, room - self.tokens))

    def facts(self) -> Tensor:
        """Seeds x rows x visual tokens x facts; nothing is true of filling."""
        found = facts_of(self.rows, self.size, len(self.visual), tiled=self.tiled)
        return functional.pad(found, (0, 0, 0, self.visual.shape[2] - self.tokens))


def facts_of(rows: Rows, size: Size | None, seeds: int, *, tiled: bool = True) -> Tensor:
    """Seeds x rows x visual tokens x facts, of clips or of pictures of one size."""
    found = clip_facts(rows) if size is None else picture_facts(rows, size, tiled=tiled)
    return found.unflatten(0, (seeds, -1))


def code(facts: Tensor) -> Tensor:
    """Facts as the language model is to hold them after its first layers: tokens x width."""
    return STRENGTH * facts @ directions(facts.device)


def look(
    model: Model,
    head: Tensor,
    seen: Seen,
    text: Text,
    tell: Tensor | None = None,
    codes: Tensor | None = None,
    stretch: Tensor | float = 1.0,
    turning: Turning | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits of the text, and the visual tokens after the first layers.

    Where `tell` (seeds x rows) holds, `codes` take the place of the visual tokens for the later layers. All
    positions are divided by `stretch` (one number, or seeds x rows x 1), and heads turn by `turning`.
    """
    seeds, rows, visual = seen.visual.shape[:3]
    start, before = len(head), len(head) + visual
    ids = head.expand(seeds, rows, -1)
    x = torch.cat([model.embed(ids), seen.visual, model.embed(text.ids)], 2)
    numbers = torch.zeros(seeds, rows, before, dtype=torch.long, device=model.device)
    numbers[..., start + seen.tokens :] = NOBODY
    numbers = torch.cat([numbers, text.dialogues], 2)
    places = torch.arange(before, device=model.device).expand(seeds, rows, -1)
    positions = torch.cat([places, start + seen.tokens + text.positions], 2) / stretch
    x = model.through(x, numbers, positions, 0, DEPTH, turning)
    middle = x[:, :, start:before]
    if codes is not None and tell is not None:
        mixed = torch.where(tell[..., None, None], codes, middle)
        x = torch.cat([x[:, :, :start], mixed, x[:, :, before:]], 2)
    x = model.through(x, numbers, positions, DEPTH, LAYERS, turning)
    return model.logits(x[:, :, before:]), middle


def read(
    model: Model, head: Tensor, rows: Rows, size: Size | None, text: Text, *, tiled: bool = True
) -> Tensor:
    """Logits of the text over a few told tokens of each scene instead of all; nothing is drawn."""
    facts = facts_of(rows, size, model.networks.seeds, tiled=tiled)
    tokens, late = facts.shape[2], GRID**2 * tiled if size else (FRAMES - 1) * CELLS**2
    told, places, there = _memory(facts, late)
    seeds, rows, kept = places.shape
    start = len(head)
    ids = head.expand(seeds, rows, -1)
    x = torch.cat([model.embed(ids), code(told), model.embed(text.ids)], 2)
    zeros = torch.zeros(seeds, rows, start, dtype=torch.long, device=model.device)
    order = torch.arange(start, device=model.device).expand(seeds, rows, -1)
    positions = torch.cat([order, start + places, start + tokens + text.positions], 2)
    # The first layers see words alone.
    blind = torch.cat([zeros, torch.full_like(places, NOBODY), text.dialogues], 2)
    after = model.through(x, blind, positions, 0, DEPTH)
    after = torch.cat([after[:, :, :start], x[:, :, start : start + kept], after[:, :, start + kept :]], 2)
    open_eyed = torch.cat([zeros, torch.where(there, 0, NOBODY), text.dialogues], 2)
    return model.logits(model.through(after, open_eyed, positions, DEPTH)[:, :, start + kept :])


def _memory(facts: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Some tokens of each scene in their order (facts, places, which are there); from `first` on are late."""
    count = facts.shape[2]
    place = torch.arange(count, device=facts.device)
    holds = facts[..., part("shape")].sum(-1) > 0
    late = place >= first
    dice = torch.rand(holds.shape, device=facts.device)
    chosen, there = [], []
    for which, most in ((holds & late, LATE), (holds & ~late, EARLY), (~holds & late, BARE)):
        best = torch.where(which, dice, -1.0).topk(most, -1)
        chosen.append(best.indices)
        there.append(best.values >= 0)
    picked, real_ones = torch.cat(chosen, -1), torch.cat(there, -1)
    order = torch.where(real_ones, picked, count).argsort(-1)
    picked, real_ones = picked.gather(-1, order), real_ones.gather(-1, order)
    return facts.gather(2, picked[..., None].expand(-1, -1, -1, FACTS)), picked, real_ones


def answer_loss(logits: Tensor, text: Text) -> Tensor:
    """Cross entropy of what the assistant says, for each seed."""
    flat = functional.cross_entropy(
        logits.flatten(0, 2), text.labels.flatten(), reduction="none", ignore_index=UNKNOWN
    )
    weights = text.weights * (text.labels != UNKNOWN)
    return (flat.view(text.labels.shape) * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)


def fact_loss(hidden: Tensor, facts: Tensor, tokens: int) -> tuple[Tensor, Told]:
    """How far tokens are from the code of their facts, and which share of each group can be read off."""
    hidden, facts = hidden[:, :, :tokens], facts[:, :, :tokens]
    here = facts[..., part("shape")].sum(-1) > 0
    error = (hidden - code(facts)).square().sum(-1) / STRENGTH**2
    found = hidden @ directions(hidden.device).T / STRENGTH
    off = mean((found - facts)[..., part("numbers")].square(), here[..., None])
    loss, shares = 0.15 * mean(error) + 0.1 * mean(error, here) + 1.5 * off, {}
    for group in EXCLUSIVE:
        known = facts[..., part(group)].sum(-1) > 0
        logits, truth = 5 * found[..., part(group)], facts[..., part(group)].argmax(-1)
        # Only the last frame knows what a thing does, and how large it is beside others.
        weight = 0.6 if group in ("doing", "size") else 0.12
        loss = loss + weight * mean(_cross_entropy(logits, truth), known)
        shares[group] = mean((logits.argmax(-1) == truth).float(), known)
    return loss, shares
