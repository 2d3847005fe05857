"""Sentences that say what a scene shows, and the facts read back from such sentences."""

from __future__ import annotations

import re
from collections import Counter

from llava_next_video.world.scene import COLOURS, HEADING, SHAPES, Scene, Thing

Fact = tuple[str, str, str]
_ORDINALS = ("first", "second", "third")
_NUMBERS = ("no", "one", "two", "three")


def does(thing: Thing) -> str:
    """What a thing does, after its name: `moves left, then up`."""
    actions = thing.actions
    if actions[0] in HEADING:
        return f"moves {', then '.join(actions)}"
    if actions[0] == "recolour":
        return f"turns {thing.final_colour}"
    return "stays still" if actions[0] == "still" else f"{actions[0]}s"


def infinitive(thing: Thing) -> str:
    """What a thing does, after "does it": `move left, then up`."""
    verb, *rest = does(thing).split(" ")
    return " ".join([verb.removesuffix("s"), *rest])


def caption(scene: Scene, *, detailed: bool = False) -> str:
    """What the scene shows: one sentence, or in detail one sentence per fact.

    Things come from left to right as they are at the start.
    """
    medium = "image" if scene.still else "video"
    if not scene.things:
        return f"The {medium} is empty."
    if detailed:
        count = len(scene.things)
        sentences = [
            f"There {'is' if count == 1 else 'are'} {_NUMBERS[count]} object{'s' if count > 1 else ''}."
        ]
        for ordinal, thing in zip(_ORDINALS, scene.things, strict=False):
            sentences.append(f"The {ordinal} is {_article(thing)}.")
            if not scene.still:
                sentences.append(f"It {does(thing)}.")
            elif scene.fine:
                sentences.append(f"Its pattern is {thing.texture}.")
        return " ".join(sentences)
    parts = [_article(thing) if scene.still else f"{_article(thing)} {does(thing)}" for thing in scene.things]
    sentence = " and ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def facts(scene: Scene) -> tuple[Fact, ...]:
    """Colour, shape and doing of each thing (no doing in a still scene)."""
    return tuple((t.colour, t.shape, "" if scene.still else does(t)) for t in scene.things)


def read_facts(text: str) -> tuple[Fact, ...]:
    """Colour, shape and doing of each thing that a caption speaks of; what it does not say is empty.

    >>> read_facts("A red star moves left, then up and an orange ring stays still.")
    (('red', 'star', 'moves left, then up'), ('orange', 'ring', 'stays still'))
    >>> read_facts("There is one object. The first is a blue circle. It grows.")
    (('blue', 'circle', 'grows'),)
    """
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads), len(text)][1:]
    found = []
    for head, end in zip(heads, ends, strict=True):
        doing = _DOING.search(text[head.end() : end])
        found.append((head["colour"], head["shape"], doing[0] if doing else ""))
    return tuple(found)


def truth_share(answer: str, truth: str) -> float:
    """Facts that are both true and said, of all that are true or said; without facts 1 if equal, else 0.

    >>> truth_share("A red star grows and a blue ring bounces.", "A red star grows and a blue ring shrinks.")
    0.3333333333333333
    >>> truth_share("left", "left"), truth_share("right", "left")
    (1.0, 0.0)
    """
    true, said = Counter(read_facts(truth)), Counter(read_facts(answer))
    if not true:
        return float(answer.strip() == truth.strip())
    return (true & said).total() / (true | said).total()


def _article(thing: Thing) -> str:
    return f"{'an' if thing.name[0] in 'aeio' else 'a'} {thing.name}"


_WAY = r"(?:up|down) and (?:left|right)|left|right|up|down"
_HEAD = re.compile(rf"\b[Aa]n? (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})\b")
_DOING = re.compile(
    rf"\b(?:moves (?:{_WAY})(?:, then (?:{_WAY}))?|turns (?:{'|'.join(COLOURS)})|stays still|bounces|grows"
    r"|shrinks|appears|disappears)\b"
)
