"""What is true of the thing under each visual token, as one vector of facts per token.

The two stand-ins for a pretrained language model share these vectors: `reading.py` learns to answer from
them, `seeing.py` learns to find them in frames. The real system needs neither.
"""

import itertools
import math

import torch
from batches import COLOUR_NAMES, kind_of
from clips import CANVAS, Seen
from network import CELLS, FRAMES, GRID, WIDTH
from torch import Tensor

from llava_next_video.geometry import fitted, unpadded
from llava_next_video.size import Size
from llava_next_video.world.captions import does
from llava_next_video.world.questions import place_name
from llava_next_video.world.scene import CARDINAL, COLOURS, HEADING, SHAPES, TEXTURES, Scene, State, Thing

DOINGS = [
    *(f"moves {way}" for way in HEADING),
    *(f"moves {a}, then {b}" for a in CARDINAL for b in CARDINAL if HEADING[a][0] ** 2 != HEADING[b][0] ** 2),
    *(f"turns {colour}" for colour in COLOURS),
    *("stays still", "bounces", "grows", "shrinks", "appears", "disappears"),
]
PLACES = [
    f"{row} {column}".strip() or "center" for row in ("top", "", "bottom") for column in ("left", "", "right")
]
SIDES = (("left", 0, -1), ("right", 0, 1), ("top", 1, -1), ("bottom", 1, 1))
GROUPS = {
    "where": FRAMES + 3, "colour": len(COLOURS), "shape": len(SHAPES), "kind": len(COLOURS) * len(SHAPES),
    "colour at first": len(COLOURS), "doing": len(DOINGS), "place": 9, "place at first": 9,
    "count": 4, "count at first": 4, "turn": 2, "size": 2, "pattern": 4,
    "sides": 4, "sides at first": 4, "gone": 1, "numbers": 6, "ways": 4, "ways then": 4, "part": 6,
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
SHAPE_FACTS = slice(BEGIN["shape"], BEGIN["kind"])


def directions(seed: int = 0) -> Tensor:
    """One direction of the language model's space for each fact, at right angles to all others."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0][:FACTS]


def facts_of(seen: Seen) -> Tensor:
    """Scenes x visual tokens x facts."""
    return _facts_of_pictures(seen) if seen.columns else _facts_of_clips(seen)


class _Page:
    """Facts being noted, token by token."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.facts: list[int] = []
        self.values: list[float] = []

    def say(self, token: int, group: str, which: int, value: float = 1.0) -> None:
        self.tokens.append(token)
        self.facts.append(BEGIN[group] + which)
        self.values.append(value)

    def say_looks(self, token: int, thing: Thing, state: State) -> None:
        self.say(token, "colour", COLOUR_NAMES.index(state.colour))
        self.say(token, "shape", SHAPES.index(thing.shape))
        self.say(token, "kind", kind_of(state.colour, thing.shape) - 1)
        if place := place_name(state.x, state.y):
            which = PLACES.index(place)
            self.say(token, "place", which)
            self.say(token, "part", which % 3)
            self.say(token, "part", 3 + which // 3)
        self.say(token, "numbers", 0, (state.x - 0.5) * 2)
        self.say(token, "numbers", 1, (state.y - 0.5) * 2)

    def tensor(self, scenes: int, tokens: int) -> Tensor:
        found = torch.zeros(scenes * tokens, FACTS)
        found[self.tokens, self.facts] = torch.tensor(self.values)
        return found.unflatten(0, (scenes, tokens))


def _facts_of_clips(seen: Seen) -> Tensor:
    page = _Page()
    for number, scene in enumerate(seen.scenes):
        _tell_clip(page, number * FRAMES * CELLS**2, scene, seen.times[number])
    return page.tensor(len(seen.scenes), FRAMES * CELLS**2)


def _tell_clip(page: _Page, base: int, scene: Scene, times: list[float]) -> None:
    per, middles, things = CELLS**2, _cells(CELLS), scene.things
    states = [[thing.at(time) for time in times] for thing in things]
    for t in range(FRAMES):
        start = base + t * per
        for cell in range(per):
            page.say(start + cell, "where", t)
        shown = [(k, states[k][t]) for k in range(len(things)) if states[k][t].visible]
        owners = _owners(shown, middles, scene.aspect)
        if t == FRAMES - 1:
            gone = [(k, _last_seen(states[k])) for k in range(len(things)) if _is_gone(states[k])]
            owners = {**_owners(gone, middles, scene.aspect), **owners}
        for cell, k in owners.items():
            _tell_thing(page, start + cell, things[k], states[k], t)
        if t == FRAMES - 1:
            _tell_end(page, start, scene, owners)


def _tell_thing(page: _Page, token: int, thing: Thing, states: list[State], t: int) -> None:
    state = states[t]
    if not state.visible:
        state = _last_seen(states)
        page.say(token, "gone", 0)
    page.say_looks(token, thing, state)
    first = next(state for state in states if state.visible)
    page.say(token, "colour at first", COLOUR_NAMES.index(thing.colour))
    if states[0].visible and (place := place_name(first.x, first.y)):
        page.say(token, "place at first", PLACES.index(place))
    page.say(token, "numbers", 2, (first.x - 0.5) * 2)
    page.say(token, "numbers", 3, (first.y - 0.5) * 2)
    page.say(token, "numbers", 4, (state.x - first.x) * 3)
    page.say(token, "numbers", 5, (state.y - first.y) * 3)


def _tell_end(page: _Page, start: int, scene: Scene, owners: dict[int, int]) -> None:
    """What only the last frame's tokens can know: all of the clip lies behind them."""
    things = scene.things
    starts, ends = (
        [(k, thing.at(moment)) for k, thing in enumerate(things) if thing.at(moment).visible]
        for moment in (0.0, 1.0)
    )
    for cell in range(CELLS**2):
        page.say(start + cell, "count", len(ends))
        page.say(start + cell, "count at first", len(starts))
    sides, first_sides, sizes = _extremes(ends), _extremes(starts), _sizes(scene)
    movers = scene.movers if len(scene.movers) == 2 else ()
    for cell, k in owners.items():
        token, thing = start + cell, things[k]
        page.say(token, "doing", DOINGS.index(does(thing)))
        for group, action in zip(("ways", "ways then"), thing.actions, strict=False):
            for way in action.split():
                if way in CARDINAL:
                    page.say(token, group, CARDINAL.index(way))
        for side in sides.get(k, ()):
            page.say(token, "sides", side)
        for side in first_sides.get(k, ()):
            page.say(token, "sides at first", side)
        if thing in movers:
            page.say(token, "turn", movers.index(thing))
        if k in sizes:
            page.say(token, "size", sizes[k])


def _facts_of_pictures(seen: Seen) -> Tensor:
    """The base view, then the rows of tiles, a newline after each."""
    tiles, columns = _tile_places(seen.size)
    base = _cells(GRID)
    rows = len(tiles) // columns
    per, page = len(base) + rows * (columns + 1), _Page()
    for number, scene in enumerate(seen.scenes):
        shown = [(k, thing.at(0.0)) for k, thing in enumerate(scene.things)]
        sides, sizes = _extremes(shown), _sizes(scene)
        for k in range(len(base)):
            page.say(number * per + k, "where", FRAMES)
        for place, k in _owners(shown, base, scene.aspect).items():
            page.say_looks(number * per + place, scene.things[k], shown[k][1])
        owners = _owners(shown, tiles, scene.aspect)
        for place in range(len(tiles)):
            token = number * per + len(base) + place + place // columns
            page.say(token, "where", FRAMES + 1)
            page.say(token, "count", len(scene.things))
            if (k := owners.get(place)) is None:
                continue
            page.say_looks(token, scene.things[k], shown[k][1])
            for side in sides.get(k, ()):
                page.say(token, "sides", side)
            if k in sizes:
                page.say(token, "size", sizes[k])
            if scene.fine:
                page.say(token, "pattern", TEXTURES.index(scene.things[k].texture))
        for row in range(rows):
            page.say(number * per + len(base) + row * (columns + 1) + columns, "where", FRAMES + 2)
    return page.tensor(len(seen.scenes), per)


def _last_seen(states: list[State]) -> State:
    return next(state for state in reversed(states) if state.visible)


def _is_gone(states: list[State]) -> bool:
    return not states[-1].visible and any(state.visible for state in states)


def _cells(rows: int) -> list[tuple[float, float]]:
    return [((i + 0.5) / rows, (j + 0.5) / rows) for j in range(rows) for i in range(rows)]


def _tile_places(picture: Size) -> tuple[list[tuple[float, float]], int]:
    """Middles of the patches that are kept, in units of the picture, and how many there are in a row."""
    inner, kept = fitted(picture, CANVAS), unpadded(Size(2 * GRID, 2 * GRID), picture)
    top, left = (CANVAS.height - inner.height) // 2, (CANVAS.width - inner.width) // 2
    patch = CANVAS.height // (2 * GRID)
    y, x = (2 * GRID - kept.height) // 2, (2 * GRID - kept.width) // 2
    places = [
        (((x + i + 0.5) * patch - left) / inner.width, ((y + j + 0.5) * patch - top) / inner.height)
        for j in range(kept.height)
        for i in range(kept.width)
    ]
    return places, kept.width


def _owners(
    states: list[tuple[int, State]], middles: list[tuple[float, float]], aspect: float
) -> dict[int, int]:
    """Which thing lies under which place; the nearer one wins."""
    root = math.sqrt(aspect)
    found: dict[int, tuple[float, int]] = {}
    for number, state in states:
        far = [max(abs(x - state.x), abs(y - state.y)) for x, y in middles]
        nearest = min(
            range(len(middles)), key=lambda k: math.hypot(middles[k][0] - state.x, middles[k][1] - state.y)
        )
        wide, high = 0.8 * state.radius / root + 0.03, 0.8 * state.radius * root + 0.03
        for k, (x, y) in enumerate(middles):
            under = k == nearest or (abs(x - state.x) <= wide and abs(y - state.y) <= high)
            if under and far[k] < found.get(k, (9.0, 0))[0]:
                found[k] = (far[k], number)
    return {k: number for k, (_, number) in found.items()}


def _extremes(states: list[tuple[int, State]]) -> dict[int, list[int]]:
    """For each thing on which sides it is the outermost, by a margin."""
    sides: dict[int, list[int]] = {}
    if len(states) < 2:
        return sides
    for index, (_, axis, sign) in enumerate(SIDES):
        ranked = sorted(states, key=lambda one: -sign * (one[1].x, one[1].y)[axis])
        first, second = ((state.x, state.y)[axis] for _, state in ranked[:2])
        if abs(first - second) > 0.1:
            sides.setdefault(ranked[0][0], []).append(index)
    return sides


def _sizes(scene: Scene) -> dict[int, int]:
    """The largest (0) and the smallest thing (1)."""
    if len(scene.things) < 2:
        return {}
    ranked = sorted(range(len(scene.things)), key=lambda k: -scene.things[k].radius)
    return {ranked[0]: 0, ranked[-1]: 1}
