"""Dialogues of several turns about one scene, as LLaVA rows."""

from __future__ import annotations

import random
from typing import TypedDict

from llava_next_video.world.questions import Question, ask
from llava_next_video.world.scene import Scene
from llava_next_video.world.wordings import Family

# "from" is a Python keyword, hence the call form.
Turn = TypedDict("Turn", {"from": str, "value": str})


class Row(TypedDict, total=False):
    """One sample of a LLaVA JSON file: a medium by its relative path, and what was said about it."""

    id: str
    video: str
    image: str
    conversations: list[Turn]
    data_source: str


def converse(
    scene: Scene, rng: random.Random, turns: int, families: frozenset[Family] | None = None
) -> tuple[Question, ...]:
    """Up to so many questions about a scene, none asked twice; with `families` only those."""
    return tuple(ask(scene, rng, families=families)[:turns])


def llava_row(identity: str, medium: str, scene: Scene, questions: tuple[Question, ...]) -> Row:
    """A row for a LLaVA JSON file; the first question carries the placeholder of the medium."""
    kind = "image" if scene.still else "video"
    turns: list[Turn] = []
    for question in questions:
        placeholder = "" if turns else f"<{kind}>\n"
        turns.append({"from": "human", "value": f"{placeholder}{question.text}"})
        turns.append({"from": "gpt", "value": question.answer})
    row: Row = {"id": identity, "conversations": turns, "data_source": "toy world"}
    if scene.still:
        row["image"] = medium
    else:
        row["video"] = medium
    return row
