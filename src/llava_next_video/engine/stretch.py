"""What the layers need to know of the tokens of a step.

A scheduler's chunks say more than that; a follower, which has no scheduler, knows no more.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Holder(Protocol):
    """Whoever holds pages of keys and values."""

    @property
    def id_and_index(self) -> tuple[int, int]:
        """Names it among all that hold some."""

    @property
    def pages(self) -> list[int]:
        """In order; one list while they only become more, another one once they are others."""


@runtime_checkable
class Stretch(Protocol):
    """Tokens that follow each other, to be computed in one step."""

    @property
    def request(self) -> Holder:
        """Whose they are."""

    @property
    def start(self) -> int:
        """Where the first of them stands in its request."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def samples(self) -> bool:
        """Whether the next token is chosen after them."""
