"""What the kernels of a GPU are told of a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

LEAST_ROWS = 16
"""Of one matrix product on a GPU."""


class Field(IntEnum):
    """What stands in which column of the table.

    POSITION, ROPE, TABLE and COVERED belong to the row of the step: where the token stands in its request,
    how such positions are scaled, which page table it looks through, and how many tokens of it a shared
    bundle reads. The others list things of which there are no more than rows: own bundles, shared bundles,
    their rows, and long chunks.
    """

    POSITION = 0
    TABLE = 1
    COVERED = 2
    OWN_FIRST = 3
    OWN_COUNT = 4
    SHARED_FIRST = 5
    SHARED_COUNT = 6
    SHARED_END = 7
    SHARED_ROW = 8
    LONG_TABLE = 9
    LONG_QUERIES = 10
    LONG_KEYS = 11
    ROPE = 12


FIELDS = len(Field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Long:
    """Chunks of many tokens that follow each other, for attention without pages.

    Attributes:
        first, end: Their rows of the step.
        queries, keys: Tokens of each chunk that ask, and that are seen (those before the chunk, too).
    """

    first: int
    end: int
    queries: tuple[int, ...]
    keys: tuple[int, ...]

    @property
    def begins(self) -> bool:
        """Whether no chunk has anything before it."""
        return self.queries == self.keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The shape of a step: what kernels are launched with.

    A bundle is some rows of the step that read the same pages together.

    Attributes:
        rows: Rows of the step, those that only fill it up included.
        own: How many bundles read what a request has for itself.
        own_rows: Products of the queries of such a bundle with its keys take so many rows (a power of two).
        shared: How many bundles read what several requests have in common, rounded up to a power of two.
        shared_rows: The same for these.
        apart: Whether each row is the next token of another request, or fills the step up.
        tokens: How many tokens such rows look at, all together.
        long: Chunks that do not go through bundles.
    """

    rows: int
    own: int
    own_rows: int
    shared: int = 0
    shared_rows: int = LEAST_ROWS
    apart: bool = False
    tokens: int = 0
    long: Long | None = None

    @property
    def paged_rows(self) -> int:
        """Rows that look through bundles."""
        return self.rows - (0 if self.long is None else self.long.end - self.long.first)
