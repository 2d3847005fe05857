"""Random scenes, one seed each.

Draws scenes in which everything that the questions name can be told apart: things differ in colour or shape,
stand out from the ground, stay inside the frame and do not cover each other.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from llava_next_video.errors import ConfigError
from llava_next_video.world.scene import (
    ACTIONS,
    CARDINAL,
    COLOURS,
    HEADING,
    SHAPES,
    TEXTURES,
    Action,
    Ground,
    GroundKind,
    Rgb,
    Scene,
    Step,
    Thing,
)

Kind = str
# How often a thing does what; "then" is one direction after another.
_KINDS = {
    "left": 9.0, "right": 9.0, "up": 9.0, "down": 9.0, "up and left": 4.0, "up and right": 4.0,
    "down and left": 4.0, "down and right": 4.0, "still": 11.0, "bounce": 6.0, "grow": 5.0, "shrink": 5.0,
    "appear": 4.5, "disappear": 4.5, "recolour": 6.0, "then": 10.0,
}  # fmt: skip
_CHECKED_TIMES = tuple(step / 8 for step in range(9))
_MARGIN = 0.02


def random_rgb(rng: random.Random, colour: str) -> Rgb:
    """A paint that people call by this name."""
    paints = COLOURS[colour]
    shares = [-math.log(1 - rng.random()) for _ in paints]
    total = sum(shares)
    red, green, blue = (
        min(max(sum(s * paint[c] for s, paint in zip(shares, paints, strict=True)) / total, 0.0), 1.0)
        for c in range(3)
    )
    return red, green, blue


def contrast(first: Rgb, second: Rgb) -> float:
    """How far two paints are apart: 0 is the same, 1.73 is black against white.

    >>> round(contrast((0, 0, 0), (1, 1, 1)), 2)
    1.73
    """
    return math.dist(first, second)


def random_ground(rng: random.Random, paints: Sequence[Rgb]) -> Ground:
    """A ground on which all these paints can be seen."""
    while True:
        drawn = rng.random()
        level, tint = rng.random(), (0.04 if drawn < 0.7 else 0.2)
        if drawn < 0.2:
            level, tint = rng.choice((0.0, 1.0, 0.5, 0.1)), 0.0
        kind: GroundKind = "plain" if drawn < 0.2 else rng.choice(("plain", "gradient", "noise"))
        first = _paint(rng, level, tint)
        second = first if kind == "plain" else _paint(rng, level + rng.choice((-0.22, 0.22)), tint)
        if all(contrast(paint, end) > 0.42 for paint in paints for end in (first, second)):
            angle = rng.uniform(0, 2 * math.pi)
            return Ground(kind=kind, first=first, second=second, angle=angle, seed=rng.randrange(1 << 30))


def random_scene(
    rng: random.Random, *, things: int | None = None, still: bool = False, kind: Kind | None = None
) -> Scene:
    """A scene with 0 to 3 things; `kind` makes all of them do the same (an action, or `then`).

    Without `things` a scene in twenty-five is empty. Two or three things act one after the other in a fifth
    of the moving scenes.

    Raises:
        ConfigError: More than three things, or an unknown kind.
    """
    if things is not None and not 0 <= things <= 3:
        raise ConfigError(f"a scene has 0 to 3 things, not {things}")
    if kind is not None and kind not in _KINDS:
        raise ConfigError(f"unknown kind of action {kind!r}; known: {', '.join(_KINDS)}")
    if things is None:
        things = rng.choices((0, 1, 2, 3), (4, 32, 40, 24))[0]
    aspect = math.exp(rng.uniform(-0.35, 0.35)) if rng.random() < 0.6 else 1.0
    in_turn = not still and kind is None and things > 1 and rng.random() < 0.2
    chosen: list[Thing] = []
    while len(chosen) < things:
        chosen = []
        for turn in range(things):
            for _ in range(12):
                thing = _random_thing(rng, aspect, still, kind, turn if in_turn else None)
                if _fits(thing, chosen, aspect):
                    chosen.append(thing)
                    break
    chosen.sort(key=lambda thing: thing.x)
    paints = [paint for thing in chosen for paint in (thing.at(0.0).rgb, thing.at(1.0).rgb)]
    return Scene(things=tuple(chosen), ground=random_ground(rng, paints), aspect=aspect, still=still)


def random_detail(rng: random.Random) -> Scene:
    """A still scene of one or two large things with fine stripes or checks, too fine for a small view.

    The pattern has about 28 periods across the picture: a picture that is resized to 48 pixels shows an even
    paint, the same picture at 96 pixels shows the lines.
    """
    count = rng.choice((1, 1, 2))
    while True:
        chosen = [_random_thing(rng, 1.0, True, None, None) for _ in range(count)]
        chosen = [
            replace(
                thing,
                radius=rng.uniform(0.18, 0.25),
                shape=rng.choice(("circle", "square")),
                rotation=0.0,
                x=rng.uniform(0.27, 0.73),
                y=rng.uniform(0.27, 0.73),
                texture=rng.choice(TEXTURES),
            )
            for thing in chosen
        ]
        if all(_fits(thing, chosen[:index], 1.0) for index, thing in enumerate(chosen)):
            break
    chosen.sort(key=lambda thing: thing.x)
    paints = [thing.rgb for thing in chosen]
    return Scene(things=tuple(chosen), ground=random_ground(rng, paints), still=True, fine=True)


def random_scenes(seed: int, *, still: bool = False) -> Iterator[Scene]:
    """Scenes without end; the same seed gives the same scenes."""
    return (random_scene(random.Random(f"{seed}/{index}"), still=still) for index in itertools.count())


def _paint(rng: random.Random, level: float, tint: float) -> Rgb:
    red, green, blue = (min(max(level + rng.uniform(-tint, tint), 0.0), 1.0) for _ in range(3))
    return red, green, blue


def _random_thing(
    rng: random.Random, aspect: float, still: bool, kind: Kind | None, turn: int | None
) -> Thing:
    """A thing anywhere inside the frame; `turn` 0 moves in the first half, 1 in the second, 2 never."""
    colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
    if still:
        drawn = "still"
    elif turn is not None:
        drawn = "still" if turn > 1 else rng.choice(CARDINAL)
    else:
        drawn = kind or rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
    begin, end = rng.uniform(0, 0.12), rng.uniform(0.88, 1)
    if turn is not None:
        begin, end = (0.0, 0.44) if turn == 0 else (0.56, 1.0)
    steps = _steps(rng, drawn, begin, end, colour)
    radius = rng.uniform(0.11, 0.165)
    if drawn == "grow":
        radius = rng.uniform(0.08, 0.1)
    elif drawn == "shrink":
        radius = rng.uniform(0.16, 0.2)
    thing = Thing(
        colour=colour,
        shape=shape,
        rgb=random_rgb(rng, colour),
        x=0.0,
        y=0.0,
        radius=radius,
        rotation=rng.uniform(-0.12, 0.12),
        steps=steps,
    )
    states = [thing.at(time) for time in _CHECKED_TIMES]
    wide = max(state.radius for state in states) / math.sqrt(aspect) + _MARGIN
    high = max(state.radius for state in states) * math.sqrt(aspect) + _MARGIN
    low_x, high_x = wide - min(s.x for s in states), 1 - wide - max(s.x for s in states)
    low_y, high_y = high - min(s.y for s in states), 1 - high - max(s.y for s in states)
    if low_x > high_x or low_y > high_y:
        return _random_thing(rng, aspect, still, kind, turn)
    return replace(thing, x=rng.uniform(low_x, high_x), y=rng.uniform(low_y, high_y))


def _steps(rng: random.Random, kind: Kind, begin: float, end: float, colour: str) -> tuple[Step, ...]:
    if kind == "still":
        return ()
    if kind == "then":
        first = rng.choice(CARDINAL)
        second: Action = rng.choice(("up", "down") if first in ("left", "right") else ("left", "right"))
        middle = (begin + end) / 2
        return (
            Step(action=first, begin=begin, end=middle, amount=rng.uniform(0.26, 0.4)),
            Step(action=second, begin=middle, end=end, amount=rng.uniform(0.26, 0.4)),
        )
    if kind in HEADING:
        diagonal = all(HEADING[kind])
        amount = rng.uniform(0.25, 0.38) if diagonal else rng.uniform(0.28, 0.5)
        return (Step(action=_action(kind), begin=begin, end=end, amount=amount),)
    if kind == "bounce":
        amount = rng.choice((-1, 1)) * rng.uniform(0.28, 0.45)
        return (Step(action="bounce", begin=begin, end=end, amount=amount, sideways=rng.random() < 0.5),)
    if kind in ("grow", "shrink"):
        amount = rng.uniform(1.9, 2.3) if kind == "grow" else rng.uniform(0.4, 0.5)
        return (Step(action=_action(kind), begin=begin, end=end, amount=amount),)
    moment = rng.uniform(0.3, 0.68)
    step = Step(action=_action(kind), begin=moment - 0.01, end=moment + 0.01)
    if kind == "recolour":
        other = rng.choice([c for c in COLOURS if c != colour])
        step = replace(step, colour=other, rgb=random_rgb(rng, other))
    return (step,)


def _action(kind: Kind) -> Action:
    return next(action for action in ACTIONS if action == kind)


def _fits(thing: Thing, others: Sequence[Thing], aspect: float) -> bool:
    """Whether a thing never shares both colour and shape with another one, and never touches it."""
    for other in others:
        if thing.shape == other.shape and {thing.colour, thing.final_colour} & {
            other.colour,
            other.final_colour,
        }:
            return False
        for time in _CHECKED_TIMES:
            a, b = thing.at(time), other.at(time)
            across, along = (a.x - b.x) * math.sqrt(aspect), (a.y - b.y) / math.sqrt(aspect)
            if across * across + along * along < (a.radius + b.radius) ** 2:
                return False
    return True
