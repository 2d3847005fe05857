"""Shares of right answers, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959964


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
