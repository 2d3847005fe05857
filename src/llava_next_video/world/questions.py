"""Questions about a scene, with the one answer that its truth gives.

Every family is a function that offers only what is unambiguous in this scene; a question that could be
answered in two ways is never asked.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llava_next_video.world.captions import caption, does, infinitive
from llava_next_video.world.scene import ACTIONS, COLOURS, HEADING, SHAPES, TEXTURES, Scene, Step, Thing
from llava_next_video.world.wordings import END_WORDS, NUMBERS, SIDES, START_WORDS, WORDINGS, Family

LETTERS = "ABCD"
_PLACE_MARGIN, _SIDE_MARGIN, _SIZE_RATIO = 0.05, 0.14, 1.28


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question about a scene and its only right answer; `rivals` are wrong answers that would fit it."""

    family: Family
    text: str
    answer: str
    rivals: tuple[str, ...] = ()


def ask(
    scene: Scene, rng: random.Random, *, families: frozenset[Family] | None = None, captions: bool = True
) -> list[Question]:
    """Everything that this scene lets one ask, in random order, each in one random wording.

    A seventh of the questions with rivals become multiple choice. With `families` only those are asked.
    """
    offered = [question for offer in _OFFERS for question in offer(scene, rng)]
    asked = [_with_letters(q, rng) if q.rivals and rng.random() < 0.16 else q for q in offered]
    if captions:
        asked.append(_captioned(scene, rng, "caption"))
        if scene.things:
            asked.append(_captioned(scene, rng, "detailed caption"))
    rng.shuffle(asked)
    return [question for question in asked if families is None or question.family in families]


def place_name(x: float, y: float) -> str | None:
    """Which ninth of the frame, or None near a border between two.

    >>> place_name(0.1, 0.9), place_name(0.5, 0.5), place_name(0.34, 0.5)
    ('bottom left', 'center', None)
    """
    if any(abs(value - border) < _PLACE_MARGIN for value in (x, y) for border in (1 / 3, 2 / 3)):
        return None
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
    return f"{row} {column}".strip() or "center"


def _put(scene: Scene, rng: random.Random, wording: str, **words: str) -> str:
    medium = rng.choice(("image", "picture") if scene.still else ("video", "clip"))
    moment = words.get("e", "")
    text = rng.choice(WORDINGS[wording]).format(m=medium, E=moment.capitalize(), **words)
    if text.startswith(", "):
        text = text[2:].capitalize()
    return text.replace(" ?", "?").replace(" .", ".").replace(" a orange", " an orange")


def _ask(
    family: Family,
    wording: str,
    answer: str,
    rivals: tuple[str, ...],
    scene: Scene,
    rng: random.Random,
    **words: str,
) -> Question:
    return Question(family=family, text=_put(scene, rng, wording, **words), answer=answer, rivals=rivals)


def _moments(scene: Scene, rng: random.Random) -> list[tuple[float, str]]:
    if scene.still:
        return [(0.0, "")]
    return [(0.0, rng.choice(START_WORDS)), (1.0, rng.choice(END_WORDS))]


def _colours(scene: Scene, rng: random.Random) -> Iterator[Question]:
    rivals = tuple(COLOURS)
    for thing in scene.things:
        if sum(other.shape == thing.shape for other in scene.things) > 1:
            continue
        if thing.final_colour == thing.colour:
            yield _ask("colour", "colour", thing.colour, rivals, scene, rng, s=thing.shape)
            if rng.random() < 0.4:
                said = rng.choice((thing.colour, rng.choice([c for c in rivals if c != thing.colour])))
                answer = "yes" if said == thing.colour else "no"
                yield _ask("yes or no", "is", answer, (), scene, rng, s=thing.shape, c=said)
        else:
            for time, moment in _moments(scene, rng):
                colour = thing.at(time).colour
                yield _ask("colour", "colour then", colour, rivals, scene, rng, s=thing.shape, e=moment)


def _shapes(scene: Scene, rng: random.Random) -> Iterator[Question]:
    for thing in scene.things:
        others = {c for o in scene.things if o is not thing for c in (o.colour, o.final_colour)}
        for colour in sorted({thing.colour, thing.final_colour} - others):
            yield _ask("shape", "shape", thing.shape, SHAPES, scene, rng, c=colour)


def _counts(scene: Scene, rng: random.Random) -> Iterator[Question]:
    if scene.steady:
        yield _ask("count", "count", NUMBERS[len(scene.things)], NUMBERS, scene, rng)
        yield _ask("yes or no", "several", "yes" if len(scene.things) > 1 else "no", (), scene, rng)
        return
    for time, moment in _moments(scene, rng):
        yield _ask("count", "count then", NUMBERS[len(scene.visible(time))], NUMBERS, scene, rng, e=moment)


def _existence(scene: Scene, rng: random.Random) -> Iterator[Question]:
    shown = {(c, t.shape) for t in scene.things for c in (t.colour, t.final_colour)}
    for colour, shape in rng.sample(sorted(shown), min(len(shown), 1)):
        yield _ask("existence", "existence", "yes", (), scene, rng, n=f"{colour} {shape}")
    colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
    if scene.things and rng.random() < 0.7:
        # A foil that shares the colour of one thing or the shape of one.
        near = rng.choice(scene.things)
        colour, shape = (near.colour, shape) if rng.random() < 0.5 else (colour, near.shape)
    if (colour, shape) not in shown:
        yield _ask("existence", "existence", "no", (), scene, rng, n=f"{colour} {shape}")
    if rng.random() < 0.25 or not scene.things:
        yield _ask("existence", "empty", "no" if scene.things else "yes", (), scene, rng)


def _positions(scene: Scene, rng: random.Random) -> Iterator[Question]:
    for time, moment in _moments(scene, rng):
        for thing in scene.visible(time):
            state = thing.at(time)
            place = place_name(state.x, state.y)
            if place:
                yield _ask("position", "position", place, (), scene, rng, n=thing.name, e=moment)
        shown = scene.visible(time)
        if len(shown) < 2:
            continue
        side = rng.choice(tuple(SIDES))
        axis, sign = SIDES[side]
        ranked = sorted(shown, key=lambda t: -sign * (t.at(time).x, t.at(time).y)[axis])
        first, second = ((t.at(time).x, t.at(time).y)[axis] for t in ranked[:2])
        if abs(first - second) > _SIDE_MARGIN:
            names = tuple(f"the {t.name}" for t in scene.things)
            yield _ask("place", "place", f"the {ranked[0].name}", names, scene, rng, d=side, e=moment)


def _doings(scene: Scene, rng: random.Random) -> Iterator[Question]:
    if scene.still:
        return
    ways = tuple(HEADING)
    for thing in scene.things:
        name, actions = thing.name, thing.actions
        if len(actions) == 2:
            yield _ask("order", "first way", actions[0], ways, scene, rng, n=name)
            yield _ask("order", "last way", actions[1], ways, scene, rng, n=name)
        elif actions[0] in HEADING:
            yield _ask("direction", "direction", actions[0], ways, scene, rng, n=name)
        yield _ask("action", "action", f"It {does(thing)}.", (), scene, rng, n=name)
        foil = _foil(thing, scene, rng)
        said, answer = (thing, "yes") if rng.random() < 0.5 else (foil, "no")
        yield _ask("yes or no", "does", answer, (), scene, rng, n=name, a=does(said), b=infinitive(said))
    if len(scene.things) > 1:
        names = tuple(f"the {t.name}" for t in scene.things)
        for thing in scene.things:
            if not any(_alike(thing, other) for other in scene.things if other is not thing):
                yield _ask("who", "who", f"the {thing.name}", names, scene, rng, a=does(thing))
        movers = scene.movers
        if len(movers) == 2 and all(mover.actions[0] in HEADING for mover in movers):
            for wording, mover in zip(("first", "last"), movers, strict=True):
                yield _ask("order", wording, f"the {mover.name}", names, scene, rng)


def _foil(thing: Thing, scene: Scene, rng: random.Random) -> Thing:
    """A thing that does something else: what another thing of the scene does, or anything."""
    others = [other for other in scene.things if not _alike(thing, other)]
    if others and rng.random() < 0.6:
        return rng.choice(others)
    return rng.choice([example for example in _EXAMPLES if not _alike(thing, example)])


def _alike(one: Thing, other: Thing) -> bool:
    """Whether someone could say of both that they do the same, at least for a while.

    What moves up and left also moves left; what bounces moves to both sides; what grows also stays still.
    """
    ways = [
        {word for action in thing.actions for word in action.split() if word in HEADING}
        for thing in (one, other)
    ]
    if "bounce" in one.actions + other.actions:
        return one.actions == other.actions or bool(ways[0] or ways[1])
    if ways[0] or ways[1]:
        return bool(ways[0] & ways[1])
    return does(one) == does(other) or "still" in one.actions + other.actions


def _sizes(scene: Scene, rng: random.Random) -> Iterator[Question]:
    for one, other in itertools.combinations(scene.things, 2):
        if {"grow", "shrink"} & {*one.actions, *other.actions}:
            continue
        large, little = sorted((one, other), key=lambda t: -t.radius)
        if large.radius > _SIZE_RATIO * little.radius:
            wording, answer = rng.choice((("size", large), ("small", little)))
            named = rng.sample((large.name, little.name), 2)
            yield _ask("size", wording, f"the {answer.name}", (), scene, rng, n=named[0], o=named[1])


def _patterns(scene: Scene, rng: random.Random) -> Iterator[Question]:
    for thing in scene.things if scene.fine else ():
        yield _ask("pattern", "pattern", thing.texture, TEXTURES, scene, rng, n=thing.name)


def _captioned(scene: Scene, rng: random.Random, family: Family) -> Question:
    wording = "moving caption" if family == "caption" and not scene.still and rng.random() < 0.25 else family
    detailed = family == "detailed caption"
    return _ask(family, wording, caption(scene, detailed=detailed), (), scene, rng)


def _with_letters(question: Question, rng: random.Random) -> Question:
    """The same question as multiple choice; the answer is a letter."""
    wrong = [rival for rival in question.rivals if rival != question.answer]
    options = [question.answer, *rng.sample(wrong, min(len(wrong), rng.choice((1, 2, 3))))]
    rng.shuffle(options)
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = f"{question.text}\n{lines}\n{rng.choice(WORDINGS['choice'])}"
    return Question(family="choice", text=text, answer=LETTERS[options.index(question.answer)])


def _example(*steps: Step) -> Thing:
    return Thing(colour="red", shape="star", rgb=(1.0, 0.0, 0.0), x=0.5, y=0.5, radius=0.1, steps=steps)


_EXAMPLES = (
    *(
        _example(Step(action=action, begin=0.0, end=1.0))
        for action in ACTIONS
        if action not in ("still", "recolour")
    ),
    *(_example(Step(action="recolour", begin=0.0, end=1.0, colour=colour)) for colour in COLOURS),
    _example(),
)
_OFFERS: tuple[Callable[[Scene, random.Random], Iterator[Question]], ...] = (
    _colours, _shapes, _counts, _existence, _positions, _doings, _sizes, _patterns,
)  # fmt: skip
