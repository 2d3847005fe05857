"""What a step on a CPU attends to, cut into parts.

Pages that several requests share (computed once for the group), the rest of a request's own pages, and the
chunk itself. Kernels in C++ find out themselves what single tokens share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from llava_next_video.engine.grouping import runs, shared_pages
from llava_next_video.engine.native import looks
from llava_next_video.engine.stretch import Stretch

_SHARED_PAGES = 4  # a shorter common run is cheaper to look at one by one
_MANY_RUNS = 4
_SHORT_TOKENS = 192


@dataclass(slots=True, kw_only=True)
class Part:
    """Some rows of the step and what they look at.

    `slots` is a range, a list, or one list for each row (then with a mask); None: themselves, causally. With
    `causal` the last row sees all of a range, each one before it one less.
    """

    rows: slice | Tensor
    slots: slice | Tensor | None
    mask: Tensor | None = None
    causal: bool = False
    fresh: bool = False  # the first part of all its rows


@dataclass(slots=True, kw_only=True)
class Plan:
    """What one step attends to, the same for all layers with one window.

    `alone` are single tokens that look at one range of slots (for kernels in C++ at one or more, side by
    side), as (row, begin, end): most of the work of a step that generates, done in as few operations as
    possible. Their rows are `alone_rows`; `looks` are the same as `alone` for the kernels.
    """

    alone: list[tuple[int, int, int]] = field(default_factory=list)
    alone_rows: list[int] = field(default_factory=list)
    looks: Tensor | None = None
    parts: list[Part] = field(default_factory=list)


class Planner:
    """Makes plans.

    Args:
        page_tokens: Tokens of a page.
        share: Whether requests look at pages that they share as a group.
        dtype: Of masks, which is that of keys and values.
        native: Whether kernels in C++ attend: they take longer ranges in one call than torch does.
    """

    def __init__(self, *, page_tokens: int, share: bool, dtype: torch.dtype, native: bool) -> None:
        self._page_tokens, self._share = page_tokens, share
        self._dtype, self._native = dtype, native

    def plan(self, chunks: Sequence[Stretch], window: int | None) -> Plan:
        """What to attend to, under a sliding window (None: everything)."""
        plan = Plan()
        begins, row = [], 0
        open_chunks = []
        for index, chunk in enumerate(chunks):
            begins.append(row)
            row += chunk.count
            if self._native and chunk.count == 1:
                first = 0 if window is None else max(0, chunk.start + 1 - window)
                ranges = runs(chunk.request.pages, first, chunk.start + 1, self._page_tokens)
                plan.alone += [(begins[index], *one) for one in ranges]
            elif window is not None and chunk.start + chunk.count > window:
                plan.parts.append(self._windowed(chunk, begins[index], window))
            else:
                open_chunks.append(index)
        covered = self._add_shared(plan, chunks, open_chunks, begins)
        short = []
        tokens = sum(chunk.count == 1 for chunk in chunks)
        for index in open_chunks:
            chunk = chunks[index]
            end = chunk.start + (chunk.count == 1)  # a single token sees itself in its page
            ranges = runs(chunk.request.pages, covered[index], end, self._page_tokens)
            long = end - covered[index] > _SHORT_TOKENS or tokens == 1
            if chunk.count == 1 and not covered[index] and len(ranges) == 1 and long:
                plan.alone.append((begins[index], *ranges[0]))
                continue
            if chunk.count == 1 and not long:
                short.append(index)
                continue
            rows = slice(begins[index], begins[index] + chunk.count)
            if self._native:
                through = runs(
                    chunk.request.pages, covered[index], chunk.start + chunk.count, self._page_tokens
                )
                if len(through) == 1:
                    fresh = not covered[index]
                    plan.parts.append(Part(rows=rows, slots=slice(*through[0]), causal=True, fresh=fresh))
                    continue
            self._add_ranges(plan, rows, ranges, fresh=not covered[index])
            if chunk.count > 1:
                plan.parts.append(Part(rows=rows, slots=None, fresh=not covered[index] and not ranges))
        for among_shared in (False, True):
            few = [index for index in short if (covered[index] > 0) is among_shared]
            if few:
                plan.parts.append(self._short(chunks, few, begins, covered))
        plan.alone_rows = list(dict.fromkeys(row for row, _, _ in plan.alone))
        plan.looks = looks(plan.alone) if self._native else None
        return plan

    def _add_shared(
        self, plan: Plan, chunks: Sequence[Stretch], members: list[int], begins: list[int]
    ) -> dict[int, int]:
        """Parts for groups with common pages; gives how many tokens of each chunk they cover."""
        covered = dict.fromkeys(members, 0)
        if not self._share or len(members) < 2:
            return covered
        tables = [
            chunks[index].request.pages[: chunks[index].start // self._page_tokens] for index in members
        ]
        for shared in shared_pages(tables, at_least=_SHARED_PAGES):
            together = [members[member] for member in shared.members]
            rows = torch.cat([torch.arange(begins[i], begins[i] + chunks[i].count) for i in together])
            start, end = shared.start * self._page_tokens, shared.end * self._page_tokens
            pages = chunks[together[0]].request.pages
            self._add_ranges(plan, rows, runs(pages, start, end, self._page_tokens), fresh=shared.start == 0)
            covered.update(dict.fromkeys(together, end))
        return covered

    def _add_ranges(
        self, plan: Plan, rows: slice | Tensor, ranges: list[tuple[int, int]], *, fresh: bool
    ) -> None:
        if len(ranges) > _MANY_RUNS:
            slots = torch.cat([torch.arange(begin, end) for begin, end in ranges])
            plan.parts.append(Part(rows=rows, slots=slots, fresh=fresh))
            return
        for number, (begin, end) in enumerate(ranges):
            plan.parts.append(Part(rows=rows, slots=slice(begin, end), fresh=fresh and number == 0))

    def _short(
        self, chunks: Sequence[Stretch], few: list[int], begins: list[int], covered: dict[int, int]
    ) -> Part:
        """Single tokens with little of their own to look at: copied side by side, for one call."""
        lists = [
            torch.cat(
                [
                    torch.arange(begin, end)
                    for begin, end in runs(
                        chunks[i].request.pages, covered[i], chunks[i].start + 1, self._page_tokens
                    )
                ]
            )
            for i in few
        ]
        longest = max(len(one) for one in lists)
        slots, mask = _beside(lists, longest)
        return Part(
            rows=torch.tensor([begins[i] for i in few]),
            slots=slots,
            mask=mask.to(self._dtype)[:, None, None],
            fresh=not covered[few[0]],
        )

    def _windowed(self, chunk: Stretch, row: int, window: int) -> Part:
        """A chunk of which some tokens do not see the beginning: all at once, under a mask."""
        first, end = max(0, chunk.start - window + 1), chunk.start + chunk.count
        ranges = runs(chunk.request.pages, first, end, self._page_tokens)
        slots = torch.cat([torch.arange(begin, stop) for begin, stop in ranges])
        back = torch.arange(chunk.start, end)[:, None] - torch.arange(first, end)
        mask = torch.zeros(back.shape, dtype=self._dtype).masked_fill_(
            (back < 0) | (back >= window), -torch.inf
        )
        return Part(rows=slice(row, row + chunk.count), slots=slots, mask=mask, fresh=True)


def _beside(lists: Sequence[Tensor], longest: int) -> tuple[Int[Tensor, "rows longest"], Tensor]:
    """Lists of slots as rows of one table, and what to add to their scores (minus infinity behind a list).

    What fills a row up is its own last slot: something that has been written.
    """
    table = torch.stack([torch.cat([one, one[-1:].expand(longest - len(one))]) for one in lists])
    lengths = torch.tensor([len(one) for one in lists])
    behind = torch.arange(longest)[None] >= lengths[:, None]
    return table, torch.zeros(behind.shape).masked_fill_(behind, -torch.inf)
