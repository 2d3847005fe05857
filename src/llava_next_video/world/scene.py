"""Scenes of coloured shapes, and the truth about them.

Pure Python: knows nothing about pixels, or words beyond the names of colours, shapes and actions. Places are
in units of the frame (x to the right, y down, both 0 to 1), radii in units of the square root of its area,
times run from 0 to 1 over the clip.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

Rgb = tuple[float, float, float]
Texture = Literal["plain", "horizontal stripes", "vertical stripes", "checks"]
GroundKind = Literal["plain", "gradient", "noise"]
Action = Literal[
    "still", "left", "right", "up", "down", "up and left", "up and right", "down and left", "down and right",
    "bounce", "grow", "shrink", "appear", "disappear", "recolour",
]  # fmt: skip

# Three pure or muted paints per name: a thing's colour lies between them, so that "red" is a region.
COLOURS: dict[str, tuple[Rgb, ...]] = {
    "red": ((1.0, 0.0, 0.0), (0.84, 0.14, 0.14), (0.75, 0.05, 0.1)),
    "green": ((0.0, 1.0, 0.0), (0.16, 0.67, 0.24), (0.0, 0.5, 0.0)),
    "blue": ((0.0, 0.0, 1.0), (0.18, 0.3, 0.88), (0.1, 0.1, 0.65)),
    "yellow": ((1.0, 1.0, 0.0), (0.94, 0.86, 0.18), (1.0, 0.92, 0.3)),
    "purple": ((0.5, 0.0, 0.5), (0.59, 0.2, 0.75), (0.63, 0.13, 0.94)),
    "orange": ((1.0, 0.65, 0.0), (0.96, 0.55, 0.1), (1.0, 0.5, 0.05)),
    "cyan": ((0.0, 1.0, 1.0), (0.24, 0.84, 0.88), (0.1, 0.8, 0.85)),
    "white": ((1.0, 1.0, 1.0), (0.96, 0.96, 0.96), (0.9, 0.9, 0.92)),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES: tuple[Texture, ...] = get_args(Texture)
ACTIONS: tuple[Action, ...] = get_args(Action)
CARDINAL: tuple[Action, ...] = ("left", "right", "up", "down")
DIAGONAL: tuple[Action, ...] = ("up and left", "up and right", "down and left", "down and right")
HEADING: dict[str, tuple[int, int]] = {
    "left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "up and left": (-1, -1),
    "up and right": (1, -1), "down and left": (-1, 1), "down and right": (1, 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that an object does between two times; `amount` is a distance, a ratio of radii or unused."""

    action: Action
    begin: float
    end: float
    amount: float = 0.0
    sideways: bool = True
    colour: str | None = None
    rgb: Rgb | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """An object at one moment."""

    x: float
    y: float
    radius: float
    visible: bool
    colour: str
    rgb: Rgb


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A coloured shape: how it starts, and what it does, step after step."""

    colour: str
    shape: str
    rgb: Rgb
    x: float
    y: float
    radius: float
    rotation: float = 0.0
    steps: tuple[Step, ...] = ()
    texture: Texture = "plain"

    @property
    def name(self) -> str:
        """Colour at the start, then shape: `red star`."""
        return f"{self.colour} {self.shape}"

    @property
    def actions(self) -> tuple[Action, ...]:
        """What it does, in order; `("still",)` when it does nothing."""
        return tuple(step.action for step in self.steps) or ("still",)

    @property
    def final_colour(self) -> str:
        """Its colour at the end."""
        return next((step.colour for step in reversed(self.steps) if step.colour), self.colour)

    def at(self, time: float) -> State:
        """Where it is and how it looks at a time between 0 and 1.

        >>> step = Step(action="left", begin=0.0, end=1.0, amount=0.4)
        >>> red = Thing(colour="red", shape="star", rgb=(1, 0, 0), x=0.8, y=0.5, radius=0.1, steps=(step,))
        >>> round(red.at(0.5).x, 3)
        0.6
        """
        x, y, radius, visible, colour, rgb = self.x, self.y, self.radius, True, self.colour, self.rgb
        for step in self.steps:
            done = min(max((time - step.begin) / (step.end - step.begin), 0.0), 1.0)
            if step.action in HEADING:
                right, down = HEADING[step.action]
                x, y = x + right * step.amount * done, y + down * step.amount * done
            elif step.action == "bounce":
                away = step.amount * (1 - abs(1 - 2 * done))
                x, y = (x + away, y) if step.sideways else (x, y + away)
            elif step.action in ("grow", "shrink"):
                radius *= 1 + (step.amount - 1) * done
            elif step.action == "appear":
                visible = done > 0.5
            elif step.action == "disappear":
                visible = done <= 0.5
            elif step.action == "recolour" and done > 0.5 and step.colour and step.rgb:
                colour, rgb = step.colour, step.rgb
        return State(x=x, y=y, radius=radius, visible=visible, colour=colour, rgb=rgb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What lies behind the things: one paint, or a slope between two, or speckles of both."""

    kind: GroundKind
    first: Rgb
    second: Rgb
    angle: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Up to three things over a ground; `aspect` is width through height; a still scene has one moment.

    In a `fine` scene every thing has a pattern that may be asked for (`plain` is one of them).
    """

    things: tuple[Thing, ...]
    ground: Ground
    aspect: float = 1.0
    still: bool = False
    fine: bool = False

    def visible(self, time: float) -> tuple[Thing, ...]:
        """The things that can be seen at a time."""
        return tuple(thing for thing in self.things if thing.at(time).visible)

    @property
    def steady(self) -> bool:
        """Whether everything can be seen all the time."""
        return not any(a in ("appear", "disappear") for thing in self.things for a in thing.actions)

    @property
    def movers(self) -> tuple[Thing, ...]:
        """Things that act one after the other, first to last; empty unless their times do not overlap."""
        acting = sorted((thing for thing in self.things if thing.steps), key=lambda t: t.steps[0].begin)
        apart = all(a.steps[-1].end <= b.steps[0].begin for a, b in itertools.pairwise(acting))
        return tuple(acting) if len(acting) > 1 and apart else ()
