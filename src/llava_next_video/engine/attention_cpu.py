"""Attention on a CPU, over pages that are looked at where they lie.

What a token attends to is cut into parts: pages that several requests share (computed once for the group),
the rest of its own pages, and the chunk it belongs to. The parts are merged by the log of their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llava_next_video.engine.grouping import runs, shared_pages
from llava_next_video.engine.native import Kernels, looks
from llava_next_video.engine.scheduler import Chunk

_SHARED_PAGES = 4  # a shorter common run is cheaper to look at one by one
_MANY_RUNS = 4
_SHORT_TOKENS = 192

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(slots=True, kw_only=True)
class _Part:
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

    `alone` are single tokens that look at one range of slots, as (row, begin, end): most of the work
    of a step that generates, done in as few operations as possible; `looks` are the same for the kernels.
    """

    alone: list[tuple[int, int, int]] = field(default_factory=list)
    looks: Tensor | None = None
    parts: list[_Part] = field(default_factory=list)


class CpuAttention:
    """Keys and values of all layers, and attention to them."""

    def __init__(
        self,
        *,
        windows: Sequence[int | None],
        heads: int,
        key_value_heads: int,
        head_width: int,
        pages: int,
        page_tokens: int,
        dtype: torch.dtype,
        share: bool,
        kernels: Kernels | None = None,
    ) -> None:
        self.windows = list(windows)
        self.heads, self.key_value_heads, self.head_width = heads, key_value_heads, head_width
        self.page_tokens = page_tokens
        self.share = share
        self.kernels = kernels
        # Heads before slots, so that what one head reads lies in a row. Untouched pages cost no memory.
        shape = (len(self.windows), 2, key_value_heads, pages * page_tokens, head_width)
        self.store = torch.empty(shape, dtype=dtype)
        self._plans: dict[int | None, Plan] = {}
        self._slots: slice | Tensor = slice(0)

    def begin(
        self, chunks: Sequence[Chunk], padded: int | None = None, ropes: Sequence[int] | None = None
    ) -> None:
        """Look at the pages of the next step.

        Graphs are not recorded here, so nothing is padded; and queries and keys come turned.
        """
        lies = [
            part
            for chunk in chunks
            for part in runs(chunk.request.pages, chunk.start, chunk.start + chunk.count, self.page_tokens)
        ]
        if len(lies) == 1:
            self._slots = slice(*lies[0])
        else:
            self._slots = torch.cat([torch.arange(begin, end) for begin, end in lies])
        self._plans = {window: self._plan(chunks, window) for window in set(self.windows)}

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "tokens heads width"],
        keys_values: Float[Tensor, "tokens both width"],
    ) -> Float[Tensor, "tokens heads width"]:
        """Write keys and values (their heads side by side) into their pages, and attend as planned."""
        store = self.store[layer]
        written = keys_values.view(len(queries), 2, -1, self.head_width).permute(1, 2, 0, 3)
        if isinstance(self._slots, slice):
            store[:, :, self._slots] = written
        else:
            store.index_copy_(2, self._slots, written.to(store.dtype))
        keys, values = keys_values.chunk(2, dim=1)
        plan = self._plans[self.windows[layer]]
        found = self._attend_alone(plan, store, queries)
        if not plan.parts:
            return found
        if len(plan.parts) == 1 and not plan.alone and isinstance(plan.parts[0].rows, slice):
            return self._attend_part(plan.parts[0], store, queries, keys, values)[0].to(queries.dtype)
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        sums = torch.empty(queries.shape[:2])
        if plan.alone:
            out[[row for row, _, _ in plan.alone]] = found
        for part in plan.parts:
            found, found_sums = self._attend_part(part, store, queries, keys, values)
            found = found.to(queries.dtype)
            if not part.fresh:
                old_sums = sums[part.rows]
                share = torch.sigmoid(found_sums - old_sums)[..., None].to(found.dtype)
                found = torch.lerp(out[part.rows], found, share)
                found_sums = torch.logaddexp(found_sums, old_sums)
            out[part.rows] = found
            sums[part.rows] = found_sums
        return out

    def _attend_alone(self, plan: Plan, store: Tensor, queries: Tensor) -> Float[Tensor, "rows heads width"]:
        if not plan.alone:
            return queries[:0]
        if self.kernels is not None and plan.looks is not None:
            return self.kernels.attend_alone(queries, store, plan.looks)
        asked = queries.view(queries.shape[0], 1, self.key_value_heads, -1, self.head_width)
        key, value = store[0][None], store[1][None]
        found = [
            _flash(asked[row], key[:, :, begin:end], value[:, :, begin:end])[0]
            for row, begin, end in plan.alone
        ]
        return torch.cat(found).view(-1, self.heads, self.head_width)

    def _attend_part(
        self, part: _Part, store: Tensor, queries: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attention of the part's rows and the logs of their sums, rows x heads (x width)."""
        picked = queries[part.rows]
        rows = len(picked)
        if self.kernels is not None and part.mask is None:
            if part.slots is None:
                seen = [side[part.rows].transpose(0, 1) for side in (keys, values)]
            else:
                seen = list(_seen(store, part.slots))
            causal = part.causal or part.slots is None
            found, sums = self.kernels.attend(picked, *seen, causal=causal)
            assert sums is not None
            return found, sums
        picked = picked.to(store.dtype)
        asked = picked.reshape(rows, self.key_value_heads, -1, self.head_width)
        if part.slots is None or (part.mask is not None and part.mask.dim() == 2):
            return self._by_mask(part, asked, store, keys, values)
        if part.mask is not None:
            assert isinstance(part.slots, Tensor)
            copied = store.index_select(2, part.slots.flatten())
            shape = (2, self.key_value_heads, *part.slots.shape, self.head_width)
            key, value = copied.view(shape).transpose(1, 2)
            found, sums = _flash(asked, key, value, attn_mask=part.mask)
            return found.flatten(1, 2), sums.flatten(1, 2)
        key, value = _seen(store, part.slots)
        folded = asked.permute(1, 2, 0, 3).flatten(1, 2)[None]
        found, sums = _flash(folded, key[None], value[None])
        found = found.view(self.key_value_heads, -1, rows, self.head_width).permute(2, 0, 1, 3).flatten(1, 2)
        return found, sums.view(self.key_value_heads, -1, rows).permute(2, 0, 1).flatten(1, 2)

    def _by_mask(
        self, part: _Part, asked: Tensor, store: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        if part.slots is None:
            key, value = keys[part.rows].transpose(0, 1), values[part.rows].transpose(0, 1)
        else:
            key, value = _seen(store, part.slots)
        group = asked.shape[2]
        key, value = key[:, None].expand(-1, group, -1, -1), value[:, None].expand(-1, group, -1, -1)
        found, sums = _flash(
            asked.permute(1, 2, 0, 3), key, value, is_causal=part.slots is None, attn_mask=part.mask
        )
        return found.permute(2, 0, 1, 3).flatten(1, 2), sums.permute(2, 0, 1).flatten(1, 2)

    def _plan(self, chunks: Sequence[Chunk], window: int | None) -> Plan:
        plan = Plan()
        begins, row = [], 0
        open_chunks = []
        for index, chunk in enumerate(chunks):
            begins.append(row)
            row += chunk.count
            if window is not None and chunk.start + chunk.count > window:
                plan.parts.append(self._windowed(chunk, begins[index], window))
            else:
                open_chunks.append(index)
        covered = self._add_shared(plan, chunks, open_chunks, begins)
        short = []
        tokens = sum(chunk.count == 1 for chunk in chunks)
        for index in open_chunks:
            chunk = chunks[index]
            end = chunk.start + (chunk.count == 1)  # a single token sees itself in its page
            ranges = runs(chunk.request.pages, covered[index], end, self.page_tokens)
            long = end - covered[index] > _SHORT_TOKENS or tokens == 1 or self.kernels is not None
            if chunk.count == 1 and not covered[index] and len(ranges) == 1 and long:
                plan.alone.append((begins[index], *ranges[0]))
                continue
            if chunk.count == 1 and not long:
                short.append(index)
                continue
            rows = slice(begins[index], begins[index] + chunk.count)
            if self.kernels is not None and chunk.count > 1:
                through = runs(
                    chunk.request.pages, covered[index], chunk.start + chunk.count, self.page_tokens
                )
                if len(through) == 1:
                    fresh = not covered[index]
                    plan.parts.append(_Part(rows=rows, slots=slice(*through[0]), causal=True, fresh=fresh))
                    continue
            self._add_ranges(plan, rows, ranges, fresh=not covered[index])
            if chunk.count > 1:
                plan.parts.append(_Part(rows=rows, slots=None, fresh=not covered[index] and not ranges))
        for among_shared in (False, True):
            few = [index for index in short if (covered[index] > 0) is among_shared]
            if few:
                plan.parts.append(self._short(chunks, few, begins, covered))
        plan.looks = looks(plan.alone) if self.kernels is not None else None
        return plan

    def _add_shared(
        self, plan: Plan, chunks: Sequence[Chunk], members: list[int], begins: list[int]
    ) -> dict[int, int]:
        """Parts for groups with common pages; gives how many tokens of each chunk they cover."""
        covered = dict.fromkeys(members, 0)
        if not self.share or len(members) < 2:
            return covered
        tables = [chunks[index].request.pages[: chunks[index].start // self.page_tokens] for index in members]
        for shared in shared_pages(tables, at_least=_SHARED_PAGES):
            together = [members[member] for member in shared.members]
            rows = torch.cat([torch.arange(begins[i], begins[i] + chunks[i].count) for i in together])
            start, end = shared.start * self.page_tokens, shared.end * self.page_tokens
            pages = chunks[together[0]].request.pages
            self._add_ranges(plan, rows, runs(pages, start, end, self.page_tokens), fresh=shared.start == 0)
            covered.update(dict.fromkeys(together, end))
        return covered

    def _add_ranges(
        self, plan: Plan, rows: slice | Tensor, ranges: list[tuple[int, int]], *, fresh: bool
    ) -> None:
        if len(ranges) > _MANY_RUNS:
            slots = torch.cat([torch.arange(begin, end) for begin, end in ranges])
            plan.parts.append(_Part(rows=rows, slots=slots, fresh=fresh))
            return
        for number, (begin, end) in enumerate(ranges):
            plan.parts.append(_Part(rows=rows, slots=slice(begin, end), fresh=fresh and number == 0))

    def _short(
        self, chunks: Sequence[Chunk], few: list[int], begins: list[int], covered: dict[int, int]
    ) -> _Part:
        """Single tokens with little of their own to look at: copied side by side, for one call."""
        lists = [
            torch.cat(
                [
                    torch.arange(begin, end)
                    for begin, end in runs(
                        chunks[i].request.pages, covered[i], chunks[i].start + 1, self.page_tokens
                    )
                ]
            )
            for i in few
        ]
        longest = max(len(one) for one in lists)
        slots, mask = _beside(lists, longest)
        return _Part(
            rows=torch.tensor([begins[i] for i in few]),
            slots=slots,
            mask=mask.to(self.store.dtype)[:, None, None],
            fresh=not covered[few[0]],
        )

    def _windowed(self, chunk: Chunk, row: int, window: int) -> _Part:
        """A chunk of which some tokens do not see the beginning: all at once, under a mask."""
        first, end = max(0, chunk.start - window + 1), chunk.start + chunk.count
        ranges = runs(chunk.request.pages, first, end, self.page_tokens)
        slots = torch.cat([torch.arange(begin, stop) for begin, stop in ranges])
        back = torch.arange(chunk.start, end)[:, None] - torch.arange(first, end)
        mask = torch.zeros(back.shape, dtype=self.store.dtype).masked_fill_(
            (back < 0) | (back >= window), -torch.inf
        )
        return _Part(rows=slice(row, row + chunk.count), slots=slots, mask=mask, fresh=True)


def _seen(store: Tensor, slots: slice | Tensor) -> Tensor:
    """Keys and values of some slots: looked at where they lie if they lie in a row."""
    return store[:, :, slots] if isinstance(slots, slice) else store.index_select(2, slots)


def _beside(lists: Sequence[Tensor], longest: int) -> tuple[Int[Tensor, "rows longest"], Tensor]:
    """Lists of slots as rows of one table, and what to add to their scores (minus infinity behind a list).

    What fills a row up is its own last slot: something that has been written.
    """
    table = torch.stack([torch.cat([one, one[-1:].expand(longest - len(one))]) for one in lists])
    lengths = torch.tensor([len(one) for one in lists])
    behind = torch.arange(longest)[None] >= lengths[:, None]
    return table, torch.zeros(behind.shape).masked_fill_(behind, -torch.inf)
