"""How the learning rate rises and falls."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant", "constant_decay"]

DECAY_SHARE = 1 / 3


def rate_share(step: int, *, steps: int, warmup: float, schedule: Schedule) -> float:
    """The share of the full rate at a step, counted from 0; below 1, `warmup` is a share of the steps.

    >>> [round(rate_share(step, steps=10, warmup=0.2, schedule="linear"), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.125]
    """
    rising = warmup if warmup >= 1 else math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / rising
    left = max(steps - rising, 1)
    done = min((step - rising) / left, 1.0)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - done
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "constant_decay":
            return min(1.0, (1 - done) / DECAY_SHARE)
