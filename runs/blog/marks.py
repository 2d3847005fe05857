"""Right and wrong answers to questions about unseen scenes, and how sure their shares are."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from networks import Turning
from painting import PICTURE_SIZES
from pool import to_device
from scenes import Mix, examination
from stack import SMALL, Stack
from stages import Seen, Text, look
from text import UNKNOWN, Words

from llava_next_video.evaluate.scores import bootstrap
from llava_next_video.world.captions import read_facts, truth_share
from llava_next_video.world.questions import Question
from llava_next_video.world.scene import Scene

ROOM = 400
"""Tokens of the questions about one scene; what does not fit is not asked."""
GROUPS = {
    "frames": ("colour", "shape", "count", "existence"),
    "places": ("position", "place"),
    "motion": ("action", "direction"),
    "order": ("order",),
    "captions": ("caption", "detailed caption"),
}
"""What frames show (what is there, and where), what only a clip shows, and whole captions."""

Cell = dict[str, object]
"""A share in per cent with its 95 % interval over scenes, and of each network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One question: its scene, its family, whether each network was right, and what guessing gives."""

    scene: int
    family: str
    right: tuple[bool, ...]
    guess: float


class Examination:
    """The same unseen scenes whenever it is held; everything that fits is asked about each."""

    def __init__(
        self, words: Words, count: int, *, still: bool = False, frames: int = 8, tiled: bool = True
    ) -> None:
        rng = random.Random("the blog's examination")
        self.still, self.tiled, self.sets = still, tiled, []
        sizes = PICTURE_SIZES[:3] if still else (None,)
        mix = Mix(things=SMALL, still=still, frames=frames)
        for size in sizes:
            self.sets.append((size, *examination(rng, max(count // len(sizes), 2), mix, words, ROOM)))

    def hold(self, stack: Stack) -> list[Mark]:
        """The marks of all networks."""
        [marks] = self.hold_each(stack, [None])
        return marks

    @torch.no_grad()
    def hold_each(
        self, stack: Stack, turnings: Sequence[Turning | None], *, at_once: int = 16
    ) -> list[list[Mark]]:
        """The marks of all networks, their heads turned in each of these ways.

        Every word is judged with the right words before it: all are right exactly when greedy decoding is.
        """
        found: list[list[Mark]] = [[] for _ in turnings]
        for size, table, scenes, asked in self.sets:
            guesses, numbered = _guesses(scenes, asked), len(found[0])
            for begin in range(0, len(table), at_once):
                these = slice(begin, begin + at_once)
                rows = to_device(np.concatenate([table[these]] * stack.seeds), stack.device)
                text = Text.of(rows, stack.seeds)
                seen = Seen(stack.model, rows, size, tiled=self.tiled)
                for marks, turning in zip(found, turnings, strict=True):
                    right = _right(stack, seen, text, turning)
                    for row, questions in enumerate(asked[these]):
                        for number, question in enumerate(questions, 1):
                            flags = tuple(bool(flag) for flag in right[:, row, number])
                            scene = numbered + begin + row
                            guess = guesses[question.family, _named(question)]
                            if _named(question):
                                guess = max(guess, 1 / max(len(scenes[begin + row].things), 1))
                            marks.append(Mark(scene=scene, family=question.family, right=flags, guess=guess))
        return found


def _right(stack: Stack, seen: Seen, text: Text, turning: Turning | None) -> np.ndarray:
    """Which dialogues have no wrong word: networks x scenes x 64."""
    logits, _ = look(stack.model, stack.head, seen, text, turning=turning)
    wrong = (logits.argmax(-1) != text.labels) & (text.labels != UNKNOWN)
    failed = torch.zeros(*wrong.shape[:2], 64, device=stack.device)
    failed.scatter_add_(2, text.dialogues.clamp_min(0), wrong.float())
    return (failed == 0).cpu().numpy()


def _named(question: Question) -> bool:
    """Whether the answer is the name of one of the things."""
    return question.answer.startswith("the ")


def _guesses(scenes: Sequence[Scene], asked: Sequence[list[Question]]) -> dict[tuple[str, bool], float]:
    """How often the commonest answer of a family is right."""
    counts: dict[tuple[str, bool], Counter[str]] = defaultdict(Counter)
    for questions in asked:
        for question in questions:
            counts[question.family, _named(question)][question.answer] += 1
    return {key: max(found.values()) / found.total() for key, found in counts.items()}


def cells(
    marks: Sequence[Mark], networks: slice = slice(None), names: Sequence[str] | None = None
) -> dict[str, Cell]:
    """Shares of right answers by group and by family, and of all; of those `names` if there are any."""
    single = {family: (family,) for family in sorted({mark.family for mark in marks})}
    found = {}
    for name, families in {"all": tuple(single), **GROUPS, **single}.items():
        chosen = [mark for mark in marks if mark.family in families]
        if chosen and (names is None or name in names):
            flags = [(str(mark.scene), [float(one) for one in mark.right[networks]]) for mark in chosen]
            guess = 100 * sum(mark.guess for mark in chosen) / len(chosen)
            found[name] = cell(flags) | {"guess": round(guess, 1)}
    return found


def cell(marks: Sequence[tuple[str, Sequence[float]]], *, scale: float = 100.0) -> Cell:
    """The mean of marks that several networks got for the same scenes."""
    over = bootstrap([(scene, sum(values) / len(values)) for scene, values in marks], resamples=1000)
    each = np.array([values for _, values in marks], dtype=float).mean(0) * scale
    mean, low, high = (round(scale * value, 2) for value in (over.mean, over.low, over.high))
    return {"mean": mean, "low": low, "high": high, "seeds": each.round(2).tolist(), "asked": over.count}


def caption_marks(said: str, truth: str) -> dict[str, float]:
    """Of one caption: shares of the true facts told and missing, wrong ones, the judge's share, words.

    A thing has two facts: what it looks like, and what it does. Wrong ones are counted against the true ones,
    so that right and missing make 100 per cent.

    >>> caption_marks("A red star grows.", "A red star grows and a blue ring bounces.")["missing"]
    0.5
    """
    true, told = facts_of(truth), facts_of(said)
    count = max(true.total(), 1)
    return {
        "right": (true & told).total() / count,
        "wrong": (told - true).total() / count,
        "missing": (true - told).total() / count,
        "judge": truth_share(said, truth),
        "exact": float(said == truth),
        "words": float(len(said.split())),
    }


def facts_of(text: str) -> Counter[tuple[str, ...]]:
    """What a caption says, one by one: looks of things, and what things of such looks do."""
    found: Counter[tuple[str, ...]] = Counter()
    for colour, shape, doing in read_facts(text):
        found[colour, shape] += 1
        if doing:
            found[colour, shape, doing] += 1
    return found
