"""What is true of the thing under each visual token, as one vector of facts per token.

The two stand-ins for a pretrained language model share these vectors: `reading` learns to answer from them,
`seeing` learns to find them in frames. The real system needs neither. Rows of numbers in, no scene is looked
at.
"""

from __future__ import annotations

import itertools
from functools import cache

import torch
from network import CELLS, FRAMES, GRID, WIDTH
from painting import CANVAS, Rows, kept
from scenes import DOINGS
from torch import Tensor
from torch.nn import functional

from llava_next_video.geometry import fitted
from llava_next_video.size import Size
from llava_next_video.world.scene import COLOURS, SHAPES

PLACES = [
    f"{row} {column}".strip() or "center" for row in ("top", "", "bottom") for column in ("left", "", "right")
]
GROUPS = {
    "where": FRAMES + 3, "colour": len(COLOURS), "shape": len(SHAPES), "kind": len(COLOURS) * len(SHAPES),
    "colour at first": len(COLOURS), "doing": len(DOINGS), "place": 9, "place at first": 9,
    "count": 4, "count at first": 4, "turn": 2, "size": 2, "pattern": 4,
    "sides": 4, "sides at first": 4, "gone": 1, "numbers": 7, "ways": 4, "ways then": 4, "part": 6,
}  # fmt: skip
# Of each of these groups at most one fact is true of a token.
EXCLUSIVE = (
    "colour", "shape", "kind", "colour at first", "doing", "place", "place at first", "count",
    "count at first", "turn", "size", "pattern",
)  # fmt: skip
BEGIN = dict(zip(GROUPS, itertools.accumulate(GROUPS.values(), initial=0), strict=False))
FACTS = sum(GROUPS.values())
STRENGTH = 60.0
"""Hidden states have norms of hundreds; facts that are told weakly would drown in the noise of each step."""


def part(group: str) -> slice:
    """Where the facts of a group stand in a vector."""
    return slice(BEGIN[group], BEGIN[group] + GROUPS[group])


@cache
def directions(device: torch.device | str = "cpu") -> Tensor:
    """One direction of the language model's space for each fact, at right angles to all others."""
    generator = torch.Generator().manual_seed(0)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0][:FACTS].to(device)


def clip_facts(rows: Rows) -> Tensor:
    """Scenes x visual tokens x facts."""
    visible = rows["visible"] > 0
    last = FRAMES - 1
    here = visible.clone()
    # The last frame still tells of what has gone, where it was seen last.
    gone = ~visible[..., last] & visible.any(-1)
    here[..., last] |= gone
    seen_last = (visible * torch.arange(1, FRAMES + 1, device=visible.device)).argmax(-1)
    moment = torch.arange(FRAMES, device=visible.device).expand(visible.shape).clone()
    moment[..., last] = torch.where(gone, seen_last, moment[..., last])
    place = rows["place"].gather(2, moment[..., None].expand_as(rows["place"]))
    colour = rows["colour"].long().gather(2, moment)
    owner = _owners(place, here, visible, _cells(CELLS, place.device), rows["aspect"])
    first = visible.float().argmax(-1)
    begun = place.gather(2, first[..., None, None].expand(-1, -1, 1, 3)).expand_as(place)
    told = _looks(rows, place, colour)
    told["colour at first"] = _one_hot(rows["first_colour"], "colour at first")[:, :, None].expand(
        -1, -1, FRAMES, -1
    )
    known = visible[..., :1].expand_as(visible)
    told["place at first"] = _one_hot(torch.where(known, _place(begun), -1), "place at first")
    told["gone"] = torch.zeros_like(place[..., :1])
    told["gone"][:, :, last, 0] = gone.float()
    numbers = [(place[..., :2] - 0.5) * 2, (begun[..., :2] - 0.5) * 2, (place[..., :2] - begun[..., :2]) * 3]
    told["numbers"] = torch.cat([*numbers, _radius(place)], -1)
    # What only the last frame's tokens can know: all of the clip lies behind them.
    ending = torch.zeros(FRAMES, 1, device=place.device)
    ending[last] = 1
    for group, of_thing in _ending(rows).items():
        told[group] = of_thing[:, :, None] * ending
    facts = _of_tokens(told, owner)
    facts[..., part("where")] = torch.eye(GROUPS["where"], device=place.device)[:FRAMES, None]
    for which, group in enumerate(("count", "count at first")):
        facts[:, last, :, part(group)] = _one_hot(rows["counts"][:, which], group)[:, None]
    return facts.flatten(1, 2)


def picture_facts(rows: Rows, size: Size, *, tiled: bool = True) -> Tensor:
    """The base view, then the rows of tiles, a newline after each: scenes x visual tokens x facts.

    What can be known of the whole picture is told where it ends: in the base view if that is all there is.
    """
    device = rows["place"].device
    place, visible, colour = rows["place"], rows["visible"] > 0, rows["colour"].long()
    told = _looks(rows, place, colour)
    still = torch.zeros_like(place[..., :2])
    told["numbers"] = torch.cat([(place[..., :2] - 0.5) * 2, still, still, _radius(place)], -1)
    views = []
    middles, grid = tile_places(size, device)
    for where, cells in ((FRAMES, _cells(GRID, device)), (FRAMES + 1, middles)):
        if where > FRAMES or not tiled:
            ending = _ending(rows)
            told |= {group: ending[group][:, :, None] for group in ("sides", "size", "pattern")}
        owner = _owners(place, visible, visible, cells, rows["aspect"])
        facts = _of_tokens(told, owner)[:, 0]
        facts[..., BEGIN["where"] + where] = 1
        views.append(facts)
    views[tiled][..., part("count")] = _one_hot(rows["counts"][:, 0], "count")[:, None]
    if not tiled:
        return views[0]
    tiles = views[1].unflatten(1, (grid.height, grid.width))
    newline = torch.zeros_like(tiles[:, :, :1])
    newline[..., BEGIN["where"] + FRAMES + 2] = 1
    return torch.cat([views[0], torch.cat([tiles, newline], 2).flatten(1, 2)], 1)


@cache
def tile_places(picture: Size, device: torch.device) -> tuple[Tensor, Size]:
    """Middles of the patches that are kept (x, y in units of the picture), and their rows and columns."""
    inner, (grid, y, x) = fitted(picture, CANVAS), kept(picture)
    top, left = (CANVAS.height - inner.height) // 2, (CANVAS.width - inner.width) // 2
    patch = CANVAS.height // (2 * GRID)
    across = ((torch.arange(grid.width) + x + 0.5) * patch - left) / inner.width
    along = ((torch.arange(grid.height) + y + 0.5) * patch - top) / inner.height
    return torch.stack(torch.meshgrid(across, along, indexing="xy"), -1).flatten(0, 1).to(device), grid


def _cells(side: int, device: torch.device) -> Tensor:
    middles = (torch.arange(side, device=device) + 0.5) / side
    return torch.stack(torch.meshgrid(middles, middles, indexing="xy"), -1).flatten(0, 1)


def _owners(place: Tensor, here: Tensor, visible: Tensor, middles: Tensor, aspect: Tensor) -> Tensor:
    """Which thing lies under which place (the nearest; what can be seen before what has gone), or -1.

    The shape is scenes x moments x places.
    """
    away = (middles - place[..., None, :2]).abs()
    far = away.amax(-1)
    straight = away.square().sum(-1)
    nearest = straight == straight.amin(-1, keepdim=True)
    root = aspect.sqrt().view(-1, 1, 1, 1)
    radius = place[..., 2, None]
    inside = (away[..., 0] <= 0.8 * radius / root + 0.03) & (away[..., 1] <= 0.8 * radius * root + 0.03)
    under = (nearest | inside) & here[..., None]
    far = torch.where(under, far + 4.0 * ~visible[..., None], 9.0)
    least, owner = far.min(1)
    return torch.where(least < 9.0, owner, -1)


def _of_tokens(told: dict[str, Tensor], owner: Tensor) -> Tensor:
    """Scenes x moments x places x facts, from facts of things (scenes x things x moments x facts)."""
    scenes, things, moments = told["shape"].shape[:3]
    of_things = torch.zeros(scenes, things, moments, FACTS, device=owner.device)
    for group, values in told.items():
        of_things[..., part(group)] = values
    of_things = torch.cat([of_things, torch.zeros_like(of_things[:, :1])], 1).movedim(1, 2)
    index = torch.where(owner < 0, things, owner)[..., None].expand(-1, -1, -1, FACTS)
    return of_things.gather(2, index)


def _looks(rows: Rows, place: Tensor, colour: Tensor) -> dict[str, Tensor]:
    """What can be said of things by a single look at them."""
    shape = rows["shape"].long()[..., None].expand_as(colour)
    kind = torch.where(shape < 0, -1, colour * len(SHAPES) + shape)
    where = _place(place)
    column, row = torch.where(where < 0, -1, where % 3), torch.where(where < 0, -1, where // 3)
    parts = torch.cat([_hot(column, 3), _hot(row, 3)], -1)
    return {
        "colour": _one_hot(torch.where(shape < 0, -1, colour), "colour"),
        "shape": _one_hot(shape, "shape"),
        "kind": _one_hot(kind, "kind"),
        "place": _one_hot(where, "place"),
        "part": parts,
    }


def _ending(rows: Rows) -> dict[str, Tensor]:
    """What is true of each thing when all has been seen: scenes x things x facts."""
    return {
        "doing": _one_hot(rows["doing"], "doing"),
        "ways": rows["ways"][:, :, 0].float(),
        "ways then": rows["ways"][:, :, 1].float(),
        "sides": rows["sides"][:, :, 0].float(),
        "sides at first": rows["sides"][:, :, 1].float(),
        "turn": _one_hot(rows["turn"], "turn"),
        "size": _one_hot(rows["size"], "size"),
        "pattern": _one_hot(torch.where(rows["fine"][:, None] > 0, rows["texture"], -1), "pattern"),
    }


def _radius(place: Tensor) -> Tensor:
    return (place[..., 2:] - 0.15) * 10


def _place(place: Tensor) -> Tensor:
    """Which ninth of the frame, or -1 near a border between two."""
    x, y = place[..., 0], place[..., 1]
    near = torch.zeros_like(x, dtype=torch.bool)
    for border in (1 / 3, 2 / 3):
        near |= ((x - border).abs() < 0.05) | ((y - border).abs() < 0.05)
    ninth = ((y > 1 / 3).long() + (y > 2 / 3).long()) * 3 + (x > 1 / 3).long() + (x > 2 / 3).long()
    return torch.where(near, -1, ninth)


def _one_hot(which: Tensor, group: str) -> Tensor:
    return _hot(which, GROUPS[group])


def _hot(which: Tensor, count: int) -> Tensor:
    """One of so many; nothing where it is -1."""
    return functional.one_hot(which.long() + 1, count + 1)[..., 1:].float()
