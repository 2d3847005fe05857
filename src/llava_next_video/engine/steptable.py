"""Where every token of a step looks, as one table of integers.

Numbers only, no device: what the kernels of a GPU read is filled in here, in one array, of which what is new
is sent. Its rows never move, so a captured graph finds the next step where the last one was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llava_next_video.engine.grouping import companies
from llava_next_video.engine.places import Places
from llava_next_video.engine.plan import FIELDS, LEAST_ROWS, Field, Long, Plan
from llava_next_video.engine.stretch import Holder, Stretch

_MOST_ROWS = 64


class StepTable:
    """The table and the page tables of running requests, in one array: `numbers`.

    The page tables come first, `requests` of them and one that names only the scratch page.
    """

    def __init__(
        self,
        *,
        tokens: int,
        requests: int,
        pages_each: int,
        scratch_page: int,
        page_tokens: int,
        group: int,
        long_from: int,
        shared_from: int | None,
    ) -> None:
        """An empty table.

        Args:
            tokens: Rows of a step at most.
            requests: Chunks of a step at most.
            pages_each: Pages of a request at most.
            scratch_page: What rows write to that only fill a step up.
            page_tokens: Tokens of a page.
            group: Query heads of one key head.
            long_from: Chunks of at least so many tokens, and those between them, do not go through bundles.
            shared_from: Common beginnings of at least so many tokens are read once; None: never.
        """
        self._long_from = long_from
        self._shared_pages = None if shared_from is None else -(-shared_from // page_tokens)
        self.page_tokens = page_tokens
        self.group = group
        self.pages_each = pages_each
        self.table_numbers = (requests + 1) * pages_each
        self.numbers: NDArray[np.int32] = np.zeros(self.table_numbers + (tokens + 1) * FIELDS, np.int32)
        self._tables = self.numbers[: self.table_numbers].reshape(requests + 1, pages_each)
        self._rows = self.numbers[self.table_numbers :].reshape(tokens + 1, FIELDS)
        self._scratch = requests
        self._tables[requests] = scratch_page
        self._changed = {requests}
        self._places = Places(requests)
        self._grouped: tuple[list[tuple[list[int], int]], list[tuple[tuple[int, ...], int]]] | None = None

    def unsent(self, plan: Plan) -> list[slice]:
        """Which of the numbers are new for a step; whoever asks has sent all that was named before.

        Page tables change once in a page; all of them together are megabytes.
        """
        parts = [slice(self.table_numbers, self.table_numbers + (plan.rows + 1) * FIELDS)]
        if self._changed:
            first, end = min(self._changed), max(self._changed) + 1
            parts.append(slice(first * self.pages_each, end * self.pages_each))
            self._changed.clear()
        return parts

    def fill(
        self, chunks: Sequence[Stretch], padded: int | None = None, ropes: Sequence[int] | None = None
    ) -> Plan:
        """Write down a step.

        Args:
            chunks: The step.
            padded: Add rows up to so many; they write to the scratch page and see only themselves.
            ropes: What stands in the column of that name for each chunk; None: 0.
        """
        counts = np.array([chunk.count for chunk in chunks], np.int32)
        firsts = np.cumsum(counts, dtype=np.int32) - counts
        count = int(counts.sum())
        rows = count if padded is None else padded
        self._refuse(count, rows, len(chunks))
        table = self._rows
        starts = np.array([chunk.start for chunk in chunks], np.int32)
        places = np.array([self._place(chunk.request) for chunk in chunks], np.int32)
        table[:count, Field.POSITION] = np.arange(count, dtype=np.int32) + np.repeat(starts - firsts, counts)
        table[:count, Field.TABLE] = np.repeat(places, counts)
        table[:count, Field.ROPE] = 0 if ropes is None else np.repeat(np.array(ropes, np.int32), counts)
        table[count:rows, [Field.POSITION, Field.ROPE]] = 0
        table[count:rows, Field.TABLE] = self._scratch
        table[:rows, Field.COVERED] = 0
        long = _long(counts.tolist(), self._long_from)
        short = [index for index in range(len(chunks)) if index not in long]
        shared, shared_rows = self._fill_shared(chunks, short, firsts.tolist())
        if rows == len(chunks) or padded is not None:  # one token each
            table[:rows, Field.OWN_FIRST] = np.arange(rows, dtype=np.int32)
            table[:rows, Field.OWN_COUNT] = 1
            return Plan(
                rows=rows,
                own=rows,
                own_rows=_product_rows(self.group),
                shared=shared,
                shared_rows=shared_rows,
                apart=True,
                tokens=rows + int(table[:rows, Field.POSITION].sum()),
            )
        own_rows = _product_rows(self.group * max((int(counts[i]) for i in short), default=1))
        step = own_rows // self.group
        bundles = [
            (int(firsts[i]) + place, min(step, int(counts[i]) - place))
            for i in short
            for place in range(0, int(counts[i]), step)
        ]
        if bundles:
            table[: len(bundles), [Field.OWN_FIRST, Field.OWN_COUNT]] = bundles
        return Plan(
            rows=rows,
            own=len(bundles),
            own_rows=own_rows,
            shared=shared,
            shared_rows=shared_rows,
            long=self._fill_long(long, starts, counts, firsts, places) if long else None,
        )

    def _refuse(self, count: int, rows: int, chunks: int) -> None:
        if rows != count and count != chunks:
            raise ValueError(f"only steps of one token each can be padded; this one has {count} for {chunks}")
        if not count <= rows < len(self._rows):
            raise ValueError(f"{count} tokens padded to {rows} do not fit {len(self._rows) - 1} rows")
        if chunks > self._scratch:
            raise ValueError(f"{chunks} chunks in a step, and there are {self._scratch} page tables")

    def _place(self, request: Holder) -> int:
        """The page table of a request, brought up to date."""
        if len(request.pages) > self.pages_each:
            raise ValueError(f"{len(request.pages)} pages for one request, and a table has {self.pages_each}")
        place, written = self._places.of(request)
        if written < len(request.pages):
            self._tables[place, written : len(request.pages)] = request.pages[written:]
            self._changed.add(place)
        return place

    def _fill_shared(
        self, chunks: Sequence[Stretch], short: Sequence[int], firsts: Sequence[int]
    ) -> tuple[int, int]:
        """Bundles of rows that begin with the same pages: how many, and rows of their products."""
        table, row, bundles = self._rows, 0, []
        found = self._companies([chunks[index] for index in short])
        members = [
            [r for m in one for r in range(firsts[short[m]], firsts[short[m]] + chunks[short[m]].count)]
            for one, _ in found
        ]
        size = _product_rows(self.group * max(map(len, members), default=1))
        step = size // self.group
        for rows, (_, pages) in zip(members, found, strict=True):
            end = pages * self.page_tokens
            table[rows, Field.COVERED] = end
            table[row : row + len(rows), Field.SHARED_ROW] = rows
            bundles += [(row + at, min(step, len(rows) - at), end) for at in range(0, len(rows), step)]
            row += len(rows)
        count = 1 << (len(bundles) - 1).bit_length() if bundles else 0
        if count:
            table[:count, [Field.SHARED_FIRST, Field.SHARED_COUNT, Field.SHARED_END]] = 0
            table[: len(bundles), [Field.SHARED_FIRST, Field.SHARED_COUNT, Field.SHARED_END]] = bundles
        return count, size

    def _companies(self, chunks: Sequence[Stretch]) -> list[tuple[tuple[int, ...], int]]:
        """Who shares how many first pages; found once for requests that go on generating."""
        if self._shared_pages is None:
            return []
        asked = [(chunk.request.pages, chunk.start if chunk.count > 1 else -1) for chunk in chunks]
        if self._grouped is not None:
            before = self._grouped[0]
            if len(before) == len(asked) and all(
                a[0] is b[0] and a[1] == b[1] for a, b in zip(before, asked, strict=True)
            ):
                return self._grouped[1]
        tables = [chunk.request.pages[: chunk.start // self.page_tokens] for chunk in chunks]
        found = companies(tables, at_least=self._shared_pages)
        self._grouped = asked, found
        return found

    def _fill_long(
        self,
        long: range,
        starts: NDArray[np.int32],
        counts: NDArray[np.int32],
        firsts: NDArray[np.int32],
        places: NDArray[np.int32],
    ) -> Long:
        """The long chunks, and where the queries and keys of each begin (and, behind the last, end)."""
        at = slice(long.start, long.stop)
        queries, keys = counts[at], counts[at] + starts[at]
        self._rows[: len(long), Field.LONG_TABLE] = places[at]
        for column, lengths in ((Field.LONG_QUERIES, queries), (Field.LONG_KEYS, keys)):
            self._rows[0, column] = 0
            self._rows[1 : len(long) + 1, column] = np.cumsum(lengths)
        first = int(firsts[long.start])
        return Long(
            first=first,
            end=first + int(queries.sum()),
            queries=tuple(queries.tolist()),
            keys=tuple(keys.tolist()),
        )


def _long(counts: Sequence[int], long_from: int) -> range:
    """From the first long chunk to the last.

    >>> _long([1, 600, 3, 700, 1], 64)
    range(1, 4)
    """
    long = [index for index, count in enumerate(counts) if count >= long_from]
    return range(long[0], long[-1] + 1) if long else range(0)


def _product_rows(queries: int) -> int:
    """Rows of a matrix product for so many queries, or as many as one takes.

    >>> [_product_rows(queries) for queries in (1, 17, 500)]
    [16, 32, 64]
    """
    return min(max(LEAST_ROWS, 1 << (queries - 1).bit_length()), _MOST_ROWS)
