"""Exact-match scores per family and number of things, from packed answers.

Every word is judged with the right words before it: all are right exactly when greedy decoding is right.
"""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import torch
from networks import Model
from painting import PICTURE_SIZES
from pool import to_device
from scenes import Mix, examination
from stages import Seen, Text, look, read
from text import UNKNOWN, Words

Marks = dict[tuple[str, str], list[list[bool]]]
"""Right or wrong, one flag a seed, by (medium and number of things, family)."""
ROOM = 560


class Examiner:
    """The same unseen scenes whenever it is asked."""

    def __init__(self, words: Words, *, clips: int, pictures: int, seed: int = 0) -> None:
        rng = random.Random(f"examination {seed}")
        self.words, self.sets = words, []
        for things in (1, 2, 3):
            only = tuple(float(number == things) for number in range(4))
            self.sets.append((None, *examination(rng, clips, Mix(things=only), words, ROOM)))
        for size in PICTURE_SIZES[:3]:
            mix = Mix(things=(1, 12, 12, 8), still=True)
            self.sets.append((size, *examination(rng, pictures // 3, mix, words, ROOM)))

    @torch.no_grad()
    def score(self, model: Model, *, told: bool = False, at_once: int = 32) -> Marks:
        """Answers from what is seen, or from a few tokens of facts."""
        marks: Marks = defaultdict(list)
        seeds, head = model.networks.seeds, torch.tensor(self.words.head, device=model.device)
        for size, table, scenes, asked in self.sets:
            for begin in range(0, len(table), at_once):
                these = slice(begin, begin + at_once)
                rows = to_device(np.concatenate([table[these]] * seeds), model.device)
                text = Text.of(rows, seeds)
                if told:
                    logits = read(model, head, rows, size, text)
                else:
                    logits, _ = look(model, head, Seen(model, rows, size), text)
                wrong = (logits.argmax(-1) != text.labels) & (text.labels != UNKNOWN)
                failed = torch.zeros(*wrong.shape[:2], 64, device=model.device)
                failed.scatter_add_(2, text.dialogues.clamp_min(0), wrong.float())
                right = (failed == 0).cpu().tolist()
                for row, (scene, questions) in enumerate(zip(scenes[these], asked[these], strict=True)):
                    group = "pictures" if scene.still else f"{len(scene.things)} things"
                    for number, question in enumerate(questions, 1):
                        flags = [right[seed][row][number] for seed in range(seeds)]
                        marks[group, question.family].append(flags)
        return marks


def overall(marks: Marks) -> dict[str, list[float]]:
    """The share of right answers of each seed, by group."""
    groups: dict[str, list[list[bool]]] = defaultdict(list)
    for (group, _), found in marks.items():
        groups[group] += found
    return {group: np.mean(found, 0).round(4).tolist() for group, found in sorted(groups.items())}


def table(marks: Marks, seed: int) -> str:
    """One line per group: overall, then each family."""
    lines = []
    for group, shares in overall(marks).items():
        families = {
            family: np.mean([flags[seed] for flags in found])
            for (where, family), found in sorted(marks.items())
            if where == group
        }
        each = " ".join(f"{family} {share:.2f}" for family, share in families.items())
        lines.append(f"  {group}: ALL {shares[seed]:.3f} | {each}")
    return "\n".join(lines)
