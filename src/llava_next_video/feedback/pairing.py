"""Scored answers to a chosen and a rejected one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Rule = Literal["threshold", "best_worst"]

GOOD = 3.0


def choose(scores: Mapping[str, float], rule: Rule) -> tuple[str, str] | None:
    """The chosen and the rejected of some answers with their scores; None where the rule tells none apart.

    Both rules take the best answer and the worst. `threshold` wants the best to score 3 or more and the worst
    less than 3, `best_worst` only a difference. Of equally good answers the first is taken, of equally bad
    ones the last.

    >>> choose({"a": 4.0, "b": 5.0, "c": 2.0}, "threshold")
    ('b', 'c')
    >>> choose({"a": 4.0, "b": 5.0}, "threshold"), choose({"a": 4.0, "b": 5.0}, "best_worst")
    (None, ('b', 'a'))

    Source: LLaVA-Hound-DPO, arXiv 2404.01258 (threshold); LLaVA-OneVision-Chat (best against worst).
    """
    if not scores:
        return None
    best = max(scores, key=lambda answer: scores[answer])
    worst = min(reversed(list(scores)), key=lambda answer: scores[answer])
    high, low = scores[best], scores[worst]
    told_apart = low < GOOD <= high if rule == "threshold" else low < high
    return (best, worst) if told_apart else None
