"""Scenes, and what is said about them, as rows of numbers: what worker processes make.

Knows nothing of pixels, devices or networks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from alike import resembling, unequal
from network import FRAMES
from text import NO_HEAVY, UNKNOWN, Words, choose, dialogue_rows

from llava_next_video.world.captions import does
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.questions import Question, ask
from llava_next_video.world.scene import CARDINAL, COLOURS, HEADING, SHAPES, TEXTURES, Scene, State, Thing

THINGS = 3
COLOUR_NAMES = tuple(COLOURS)
DOINGS = [
    *(f"moves {way}" for way in HEADING),
    *(f"moves {a}, then {b}" for a in CARDINAL for b in CARDINAL if HEADING[a][0] ** 2 != HEADING[b][0] ** 2),
    *(f"turns {colour}" for colour in COLOURS),
    *("stays still", "bounces", "grows", "shrinks", "appears", "disappears"),
]
SIDES = (("left", 0, -1), ("right", 0, 1), ("top", 1, -1), ("bottom", 1, 1))
PLAINLY = 1.2
"""From this ratio on, the largest and the smallest of those that keep their size are told as such."""
GROUNDS = ("plain", "gradient", "noise")
Chooser = Callable[[Scene, random.Random, Words, int, float], list[list[Question]]]
"""What is said about a scene: dialogues that fit into so many tokens, a share of them about what is hard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What kinds of scenes are drawn, and what is asked.

    Attributes:
        things: How often a scene has 0, 1, 2 or 3 things.
        alike: Share of the scenes with several things in which two resemble each other.
        unequal: Share of them in which one is made plainly smaller than another.
        focus: Share of the scenes that are asked for what is learnt late.
        still: Pictures instead of clips.
        frames: How many of a clip are looked at.
        choose: What is said.
        heavy: How much a word of an answer counts, by family; 1 where none is named.
    """

    things: tuple[float, float, float, float]
    alike: float = 0.0
    unequal: float = 0.0
    focus: float = 0.0
    still: bool = False
    frames: int = FRAMES
    choose: Chooser = choose
    heavy: Mapping[str, float] = field(default_factory=dict)


def row_type(frames: int, room: int) -> np.dtype:
    """One scene: its things at so many moments, its ground, what is true of it, and so many tokens of text.

    A thing that is not there has shape -1; -1 also means "none" for `turn`, `size` and the label of a token
    that predicts nothing is -100. `position` counts from the first token behind the visual ones.
    """
    return np.dtype(
        [
            ("place", "f4", (THINGS, frames, 3)),  # x, y, radius
            ("visible", "u1", (THINGS, frames)),
            ("colour", "i1", (THINGS, frames)),
            ("paint", "f2", (THINGS, frames, 3)),
            ("shape", "i1", THINGS),
            ("texture", "i1", THINGS),
            ("rotation", "f4", THINGS),
            ("first_colour", "i1", THINGS),
            ("doing", "i1", THINGS),
            ("ways", "u1", (THINGS, 2, 4)),  # of the first and the second step
            ("sides", "u1", (THINGS, 2, 4)),  # at the end and at the start
            ("turn", "i1", THINGS),
            ("size", "i1", THINGS),
            ("fine", "u1"),
            ("counts", "i1", 2),  # at the end and at the start
            ("aspect", "f4"),
            ("ground", "i1"),
            ("grounds", "f4", (2, 3)),
            ("angle", "f4"),
            ("id", "i2", room),
            ("label", "i2", room),
            ("position", "i2", room),
            ("dialogue", "i1", room),
            ("weight", "f2", room),
        ]
    )


def random_scenes(rng: random.Random, count: int, mix: Mix) -> list[Scene]:
    """Scenes that move, or stand; two in five of those that stand have fine patterns."""
    found = []
    for number in rng.choices(range(4), mix.things, k=count):
        if mix.still and rng.random() < 0.4:
            found.append(random_detail(rng))
        else:
            scene = resembling(random_scene(rng, things=number, still=mix.still), rng, mix.alike)
            found.append(unequal(scene, rng, mix.unequal))
    return found


def frame_times(rng: random.Random, frames: int = FRAMES) -> list[float]:
    """When the frames of a clip are looked at: evenly, with ends and steps that jitter."""
    low, high = rng.uniform(0, 0.06), rng.uniform(0.9, 1.0)
    gap = (high - low) / (frames - 1)
    return [min(max(low + gap * (i + rng.uniform(-0.12, 0.12)), 0.0), 1.0) for i in range(frames)]


def rows(rng: random.Random, count: int, mix: Mix, words: Words, room: int) -> np.ndarray:
    """So many random scenes with random questions."""
    scenes = random_scenes(rng, count, mix)
    asked = [mix.choose(scene, rng, words, room, mix.focus) for scene in scenes]
    return tabulate(scenes, rng, asked, words, room, mix.frames, mix.heavy)


def examination(
    rng: random.Random, count: int, mix: Mix, words: Words, room: int
) -> tuple[np.ndarray, list[Scene], list[list[Question]]]:
    """Random scenes, and everything that fits asked about each, one question a dialogue."""
    scenes, asked = random_scenes(rng, count, mix), []
    for scene in scenes:
        fitting, left = [], room
        for question in ask(scene, rng):
            left -= words.length(question)
            if left >= 0:
                fitting.append(question)
        asked.append(fitting)
    dialogues = [[[question] for question in fitting] for fitting in asked]
    return tabulate(scenes, rng, dialogues, words, room, mix.frames), scenes, asked


def tabulate(
    scenes: Sequence[Scene],
    rng: random.Random,
    dialogues: Sequence[list[list[Question]]],
    words: Words,
    room: int,
    frames: int = FRAMES,
    heavy: Mapping[str, float] = NO_HEAVY,
) -> np.ndarray:
    """Scenes and dialogues as rows of `row_type`."""
    frames = 1 if scenes[0].still else frames
    table = np.zeros(len(scenes), row_type(frames, room))
    for name in ("shape", "doing", "turn", "size", "texture"):
        table[name] = -1
    table["label"], table["dialogue"] = UNKNOWN, -1
    for row, scene, said in zip(table, scenes, dialogues, strict=True):
        times = [0.0] if scene.still else frame_times(rng, frames)
        _note_scene(row, scene)
        for number, thing in enumerate(scene.things):
            _note_thing(row, number, thing, [thing.at(time) for time in times], scene.fine)
        ids, labels, positions, numbers, weights = dialogue_rows(said, words, heavy)
        spoken = slice(0, len(ids))
        row["id"][spoken], row["label"][spoken], row["position"][spoken] = ids, labels, positions
        row["dialogue"][spoken], row["weight"][spoken] = numbers, weights
    return table


def _note_scene(row: np.void, scene: Scene) -> None:
    ground = scene.ground
    row["fine"], row["aspect"], row["angle"] = scene.fine, scene.aspect, ground.angle
    row["ground"], row["grounds"] = GROUNDS.index(ground.kind), (ground.first, ground.second)
    for which, moment in enumerate((1.0, 0.0)):
        shown = [(k, s) for k, s in enumerate(t.at(moment) for t in scene.things) if s.visible]
        row["counts"][which] = len(shown)
        _note_sides(row["sides"][:, which], shown)
    if len(scene.movers) == 2:
        for turn, mover in enumerate(scene.movers):
            row["turn"][scene.things.index(mover)] = turn
    steady = [k for k, thing in enumerate(scene.things) if not {"grow", "shrink"} & set(thing.actions)]
    ranked = sorted(steady, key=lambda k: -scene.things[k].radius)
    if ranked and scene.things[ranked[0]].radius > PLAINLY * scene.things[ranked[-1]].radius:
        row["size"][ranked[0]], row["size"][ranked[-1]] = 0, 1


def _note_sides(sides: np.ndarray, shown: list[tuple[int, State]]) -> None:
    """Which thing is the outermost on which side, by a margin."""
    if len(shown) < 2:
        return
    for index, (_, axis, sign) in enumerate(SIDES):
        ranked = sorted(shown, key=lambda one: -sign * (one[1].x, one[1].y)[axis])
        first, second = ((state.x, state.y)[axis] for _, state in ranked[:2])
        if abs(first - second) > 0.1:
            sides[ranked[0][0], index] = 1


def _note_thing(row: np.void, k: int, thing: Thing, states: list[State], fine: bool) -> None:
    row["place"][k] = [(s.x, s.y, s.radius) for s in states]
    row["visible"][k] = [s.visible for s in states]
    row["colour"][k] = [COLOUR_NAMES.index(s.colour) for s in states]
    row["paint"][k] = [s.rgb for s in states]
    row["shape"][k], row["rotation"][k] = SHAPES.index(thing.shape), thing.rotation
    row["first_colour"][k] = COLOUR_NAMES.index(thing.colour)
    row["doing"][k] = DOINGS.index(does(thing))
    if fine:
        row["texture"][k] = TEXTURES.index(thing.texture)
    for step, action in enumerate(thing.actions[:2]):
        for way in action.split():
            if way in CARDINAL:
                row["ways"][k, step, CARDINAL.index(way)] = 1
