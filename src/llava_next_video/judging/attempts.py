"""A judge that gave no decision is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Decision = TypeVar("Decision")


class UndecidedError(Exception):
    """A judge that gave no decision: what it said instead, or why it said nothing. It may be asked again."""

    def __init__(self, reason: str, reply: str = "") -> None:
        super().__init__(reason)
        self.reply = reply


class UnreachedError(UndecidedError):
    """Nobody was there to decide."""


def first_decision(
    judge: Callable[[], Decision],
    *,
    attempts: int,
    rest_s: float,
    undecided: Callable[[UndecidedError], None],
) -> Decision | None:
    """What the judge decides, asked so often at most; None where it never does.

    It rests before the second attempt, twice as long before each further one. `undecided` hears of every
    attempt that failed.
    """
    for attempt in range(attempts):
        if attempt:
            time.sleep(rest_s * 2 ** (attempt - 1))
        try:
            return judge()
        except UndecidedError as error:
            undecided(error)
    return None
