"""Shares of right answers, and how sure they are."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959964
NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """So many right of so many asked."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Right answers per question, 0 to 1."""
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share."""
        return wilson_interval(self.right, self.asked)


def wilson_interval(right: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share, good for small counts and shares near 0 and 1.

    >>> [round(end, 3) for end in wilson_interval(95, 100)]
    [0.888, 0.978]

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    share = right / asked
    centre = share + Z_95**2 / (2 * asked)
    spread = Z_95 * math.sqrt(share * (1 - share) / asked + Z_95**2 / (4 * asked**2))
    scale = 1 + Z_95**2 / asked
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of some marks, with a 95 % interval over videos."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap(marks: Sequence[tuple[str, float]], *, seed: int = 0, resamples: int = 2000) -> Mean:
    """The mean of marks, and between what it lies if other videos had been asked about.

    Whole videos are drawn again, with all their questions: questions about one video stand and fall together,
    so that counting each by itself would claim too much.

    Args:
        marks: The video of each mark, and the mark.
        seed: Of the draws.
        resamples: How often as many videos as there are are drawn.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap, 1993, percentile intervals; clusters as
    in E. Miller, Adding error bars to evals, arXiv 2411.00640.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for video, mark in marks:
        sums[video] += mark
        counts[video] += 1
    total, count = np.array(list(sums.values())), np.array([counts[video] for video in sums])
    dice = np.random.default_rng(seed)
    shares = np.full(len(total), 1 / len(total))
    at_once = max(1, NUMBERS_AT_ONCE // len(total))
    means = []
    for start in range(0, resamples, at_once):
        drawn = dice.multinomial(len(total), shares, size=min(at_once, resamples - start))
        means.append((drawn @ total) / (drawn @ count))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    mean = sum(mark for _, mark in marks) / len(marks)
    return Mean(mean=mean, low=float(low), high=float(high), count=len(marks))
