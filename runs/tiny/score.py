"""Exact-match scores per family and number of things, from packed answers."""

import math
import random
from collections import defaultdict

import torch
from clips import Seen, embed
from forward import look
from text import UNKNOWN, Words, pack

from llava_next_video.world.captions import facts, read_facts
from llava_next_video.world.questions import ask


@torch.no_grad()
def score(network, words: Words, looks: list[Seen], seed: int = 0) -> dict[tuple[str, str], list[bool]]:
    """Right or wrong, per (medium and number of things, family).

    Every word is judged with the right words before it: all are right exactly when greedy decoding is right.
    """
    marks: dict[tuple[str, str], list[bool]] = defaultdict(list)
    rng = random.Random(f"score {seed}")
    for seen in looks:
        visual = embed(network, seen)
        asked = [[[question] for question in ask(scene, rng)] for scene in seen.scenes]
        text = pack(asked, words, len(words.head) + visual.shape[1])
        spoken = text.labels != UNKNOWN
        right = torch.zeros_like(text.labels, dtype=torch.bool)
        right[spoken] = look(network, words, visual, text)[0].argmax(-1) == text.labels[spoken]
        for row, (scene, dialogues) in enumerate(zip(seen.scenes, asked, strict=True)):
            group = f"{'image' if scene.still else 'video'} {len(scene.things)}"
            for number, (question,) in enumerate(dialogues, 1):
                said = spoken[row] & (text.dialogues[row] == number)
                marks[group, question.family].append(bool(right[row][said].all()))
    return marks


def table(marks: dict[tuple[str, str], list[bool]]) -> str:
    """One line per group: overall, then each family with its number of questions."""
    lines = []
    for group in sorted({group for group, _ in marks}):
        families = {family: found for (where, family), found in sorted(marks.items()) if where == group}
        every = [mark for found in families.values() for mark in found]
        shares = " ".join(
            f"{family} {sum(found) / len(found):.2f}/{len(found)}" for family, found in families.items()
        )
        lines.append(f"  {group}: ALL {sum(every) / len(every):.3f}/{len(every)} | {shares}")
    return "\n".join(lines)


def interval(right: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of Wilson for a share.

    >>> [round(end, 2) for end in interval(9, 10)]
    [0.6, 0.98]
    """
    share, z = right / asked, 1.96
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z / (1 + z * z / asked) * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    return middle - half, middle + half


def facts_right(said: str, scene) -> tuple[int, int]:
    """How many facts (colour, shape, doing of each thing) a caption states rightly, and of how many."""
    told, true = read_facts(said), facts(scene)
    if not true:
        return int(said.endswith("is empty.")), 1
    names = {(colour, shape): doing for colour, shape, doing in told}
    width = 2 if scene.still else 3
    right = 0
    for colour, shape, doing in true:
        if (colour, shape) in names:
            right += 2 + (width == 3 and names[colour, shape] == doing)
    return right, width * len(true)
