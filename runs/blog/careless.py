"""What is said about clips on the web: most captions are short, and some of what is said is wrong."""

from __future__ import annotations

import random
from dataclasses import replace

from text import Words

from llava_next_video.world.captions import caption
from llava_next_video.world.questions import Question, ask
from llava_next_video.world.scene import ACTIONS, COLOURS, SHAPES, Scene, Step

SHORT, WRONG, WRONG_ANSWERS = 0.7, 0.3, 0.15
"""Shares of captions that leave something out, of captions with a wrong fact, and of other wrong answers."""
NO_DOING = 0.75
"""Share of the short captions of two things that do not say what these do; the others speak of one."""


def careless(scene: Scene, rng: random.Random, words: Words, room: int, focus: float) -> list[list[Question]]:
    """One caption and as many other questions as fit, answered carelessly, one a dialogue."""
    asked = [question for question in ask(scene, rng) if question.family != "detailed caption"]
    asked.sort(key=lambda question: question.family != "caption")
    dialogues = []
    for question in asked:
        if question.family == "caption":
            question = replace(question, answer=careless_caption(scene, rng))
        elif rng.random() < WRONG_ANSWERS:
            question = replace(question, answer=_wrong_answer(question, rng))
        length = words.length(question)
        if length <= room:
            room -= length
            dialogues.append([question])
    return dialogues


def prompted(scene: Scene, rng: random.Random, words: Words, room: int, focus: float) -> list[list[Question]]:
    """The request for a caption alone, and the true one."""
    return [[question for question in ask(scene, rng) if question.family == "caption"]]


def careless_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that may be short, or wrong, or both."""
    if not scene.things:
        return caption(scene)
    if rng.random() < WRONG:
        scene = mistaken(scene, rng)
    if rng.random() < SHORT:
        if len(scene.things) == 1 or rng.random() < NO_DOING:
            return caption(replace(scene, still=True))
        scene = replace(scene, things=(rng.choice(scene.things),))
    return caption(scene)


def mistaken(scene: Scene, rng: random.Random) -> Scene:
    """The scene as somebody remembers it who is wrong about the colour, shape or doing of one thing."""
    things = list(scene.things)
    which = rng.randrange(len(things))
    thing = things[which]
    match rng.choice(("colour", "shape", "doing")):
        case "colour":
            changed = replace(thing, colour=rng.choice([one for one in COLOURS if one != thing.colour]))
        case "shape":
            changed = replace(thing, shape=rng.choice([one for one in SHAPES if one != thing.shape]))
        case _:
            doings = [one for one in ACTIONS if one not in (*thing.actions, "recolour", "still")]
            changed = replace(thing, steps=(Step(action=rng.choice(doings), begin=0.0, end=1.0),))
    things[which] = changed
    return replace(scene, things=tuple(things))


def _wrong_answer(question: Question, rng: random.Random) -> str:
    if question.answer in ("yes", "no"):
        return "no" if question.answer == "yes" else "yes"
    rivals = [rival for rival in question.rivals if rival != question.answer]
    return rng.choice(rivals) if rivals and question.family != "choice" else question.answer
