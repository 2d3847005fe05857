"""What every token of a step looks at is written down once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.kernels.conftest import request_on

from llava_next_video.engine.plan import FIELDS, Field, Plan
from llava_next_video.engine.scheduler import Chunk
from llava_next_video.engine.steptable import StepTable

PAGE, ROOM = 4, 12
SCRATCH = 999


LIKE = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 6), st.floats(0, 0.99), st.sampled_from([0.0, 0.0, 0.4, 1.0])
    ),
    min_size=1,
    max_size=6,
)
"""For each request which beginning it has, how many pages of it, where the chunk starts, how long it is."""


def small_table(*, shared_from: int | None) -> StepTable:
    """For 8 tokens of 4 requests, with key heads of their own."""
    return StepTable(
        tokens=8,
        requests=4,
        pages_each=ROOM,
        scratch_page=SCRATCH,
        page_tokens=PAGE,
        group=1,
        long_from=64,
        shared_from=shared_from,
    )


def chunks_like(numbers: Sequence[tuple[int, int, float, float]]) -> list[Chunk]:
    """Requests on pages of their own behind a common beginning, each with some tokens to compute."""
    chunks = []
    for number, (which, shared, at, share) in enumerate(numbers):
        common = [100 * which + page for page in range(shared)]
        pages = [*common, *(1000 * (number + 1) + page for page in range(ROOM - shared))]
        start = int(shared * PAGE + at * (ROOM - shared) * PAGE)
        count = 1 + int(share * (ROOM * PAGE - start - 1))
        chunks.append(Chunk(request=request_on(pages, number), start=start, count=count))
    return chunks


def seen(table: StepTable, plan: Plan) -> list[Counter[tuple[int, int]]]:
    """For each row how often it sees which token (page and place in it), as the kernels would."""
    tables = table.numbers[: table.table_numbers].reshape(-1, ROOM)
    rows = table.numbers[table.table_numbers :].reshape(-1, FIELDS)
    found: list[Counter[tuple[int, int]]] = [Counter() for _ in range(plan.rows)]

    def look(row: int, through: int, begin: int, end: int) -> None:
        pages = tables[rows[through, Field.TABLE]]
        found[row].update((int(pages[token // PAGE]), token % PAGE) for token in range(begin, end))

    for bundle in range(plan.own):
        first, count = rows[bundle, [Field.OWN_FIRST, Field.OWN_COUNT]]
        assert count * table.group <= plan.own_rows
        for row in range(first, first + count):
            look(row, first, rows[first, Field.COVERED], rows[row, Field.POSITION] + 1)
    for bundle in range(plan.shared):
        first, count, end = rows[bundle, [Field.SHARED_FIRST, Field.SHARED_COUNT, Field.SHARED_END]]
        assert count * table.group <= plan.shared_rows
        together = rows[first : first + count, Field.SHARED_ROW]
        for row in together:
            look(row, together[0], 0, end)
    if plan.long is not None:
        ends = rows[: len(plan.long.queries) + 1, Field.LONG_QUERIES]
        for chunk in range(len(plan.long.queries)):
            assert rows[chunk + 1, Field.LONG_KEYS] - rows[chunk, Field.LONG_KEYS] == plan.long.keys[chunk]
            for row in range(plan.long.first + ends[chunk], plan.long.first + ends[chunk + 1]):
                assert rows[row, Field.TABLE] == rows[chunk, Field.LONG_TABLE]
                look(row, row, 0, rows[row, Field.POSITION] + 1)
    return found


@settings(max_examples=60, deadline=None)
@given(LIKE, st.sampled_from([1, 4, 7]), st.sampled_from([5, 1000]), st.booleans())
def test_every_token_before_a_row_is_seen_once_by_it(
    numbers: list[tuple[int, int, float, float]], group: int, long_from: int, generating: bool
) -> None:
    chunks = chunks_like(numbers)
    table = StepTable(
        tokens=len(chunks) * ROOM * PAGE,
        requests=6,
        pages_each=ROOM,
        scratch_page=SCRATCH,
        page_tokens=PAGE,
        group=group,
        long_from=long_from,
        shared_from=2 * PAGE,
    )
    if generating:
        chunks = [Chunk(request=chunk.request, start=chunk.start, count=1) for chunk in chunks]
    for attempt in range(2):  # what the first one leaves behind does no harm
        plan = table.fill(chunks, 8 if generating else None)
        wanted = [
            Counter((chunk.request.pages[token // PAGE], token % PAGE) for token in range(position + 1))
            for chunk in chunks
            for position in range(chunk.start, chunk.start + chunk.count)
        ]
        wanted += [Counter({(SCRATCH, 0): 1})] * (plan.rows - len(wanted))
        assert seen(table, plan) == wanted, attempt
        chunks = chunks[::-1]


def test_a_common_beginning_is_found_once_for_requests_that_go_on() -> None:
    table = small_table(shared_from=2 * PAGE)
    requests = [request_on([1, 2, 3, 10 + number], number) for number in range(3)]

    def step(start: int, members: list[int]) -> Plan:
        return table.fill([Chunk(request=requests[m], start=start, count=1) for m in members], 4)

    rows = table.numbers[table.table_numbers :].reshape(-1, FIELDS)
    assert step(13, [0, 1]).shared == 1
    assert step(14, [0, 1]).shared == 1
    assert np.array_equal(rows[:4, Field.COVERED], [12, 12, 0, 0])
    assert step(14, [0]).shared == 0
    assert step(15, [2, 1, 0]).shared == 1
    assert np.array_equal(rows[:4, Field.COVERED], [12, 12, 12, 0])


def test_only_what_is_new_is_sent() -> None:
    table = small_table(shared_from=None)
    requests = [request_on([10 * number], number) for number in range(3)]
    there = np.full_like(table.numbers, -1)
    there[: table.table_numbers] = 0

    def step(start: int) -> int:
        """Send a step; gives how many numbers of page tables were sent."""
        plan = table.fill([Chunk(request=one, start=start, count=1) for one in requests], 4)
        parts = table.unsent(plan)
        for part in parts:
            there[part] = table.numbers[part]
        rows = slice(table.table_numbers, table.table_numbers + plan.rows * len(Field))
        assert np.array_equal(there[: rows.stop], table.numbers[: rows.stop])
        return sum(part.stop - part.start for part in parts if part.stop <= table.table_numbers)

    assert step(0) == 4 * ROOM  # three requests and the table of rows that only fill up
    assert step(1) == 0
    requests[1].pages.append(11)
    assert step(PAGE) == ROOM
