"""Attention on a CPU, over pages that are looked at where they lie.

What a token attends to comes in parts, which are merged by the log of their sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from llava_next_video.engine.grouping import runs
from llava_next_video.engine.native import Kernels, looks
from llava_next_video.engine.plan_cpu import Part, Plan, Planner
from llava_next_video.engine.stretch import Stretch

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


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
        self.kernels = kernels
        native = kernels is not None
        self._planner = Planner(page_tokens=page_tokens, share=share, dtype=dtype, native=native)
        # Heads before slots, so that what one head reads lies in a row. Untouched pages cost no memory.
        shape = (len(self.windows), 2, key_value_heads, pages * page_tokens, head_width)
        self.store = torch.empty(shape, dtype=dtype)
        self._plans: dict[int | None, Plan] = {}
        self._slots: slice | Tensor = slice(0)
        self._slot_list = torch.arange(0)

    def begin(
        self, chunks: Sequence[Stretch], padded: int | None = None, ropes: Sequence[int] | None = None
    ) -> None:
        """Look at the pages of the next step.

        Graphs are not recorded here, so nothing is padded; and turns come with queries and keys.
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
        if self.kernels is not None:
            here = self._slots
            self._slot_list = torch.arange(here.start, here.stop) if isinstance(here, slice) else here
        self._plans = {window: self._planner.plan(chunks, window) for window in set(self.windows)}

    def places(self, chunks: Sequence[Stretch]) -> tuple[Int[Tensor, " rows"], Int[Tensor, "looks 3"]]:
        """For chunks of one token: the slot of each, and all that it looks at, itself included."""
        at, page_tokens = [], self.page_tokens
        seen: list[tuple[int, int, int]] = []
        for row, chunk in enumerate(chunks):
            pages, place = chunk.request.pages, chunk.start
            at.append(pages[place // page_tokens] * page_tokens + place % page_tokens)
            seen += [(row, *one) for one in runs(pages, 0, place + 1, page_tokens)]
        return torch.tensor(at), looks(seen)

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "tokens heads width"],
        keys_values: Float[Tensor, "tokens both width"],
        turns: Complex[Tensor, "tokens half"] | None = None,
    ) -> Float[Tensor, "tokens heads width"]:
        """Write keys and values (their heads side by side) into their pages, and attend as planned.

        Kernels first turn queries and keys, in place; without kernels both come turned.
        """
        store = self.store[layer]
        if self.kernels is not None and turns is not None:
            self.kernels.place(queries, keys_values, turns, self._slot_list, store)
        else:
            self._write(store, keys_values)
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
            out[plan.alone_rows] = found
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

    def _write(self, store: Tensor, keys_values: Tensor) -> None:
        written = keys_values.view(len(keys_values), 2, -1, self.head_width).permute(1, 2, 0, 3)
        if isinstance(self._slots, slice):
            store[:, :, self._slots] = written
        else:
            store.index_copy_(2, self._slots, written.to(store.dtype))

    def _attend_alone(self, plan: Plan, store: Tensor, queries: Tensor) -> Float[Tensor, "rows heads width"]:
        if not plan.alone:
            return queries[:0]
        if self.kernels is not None and plan.looks is not None:
            return self.kernels.attend_alone(queries, store, plan.looks, len(plan.alone_rows))
        asked = queries.view(queries.shape[0], 1, self.key_value_heads, -1, self.head_width)
        key, value = store[0][None], store[1][None]
        found = [
            _flash(asked[row], key[:, :, begin:end], value[:, :, begin:end])[0]
            for row, begin, end in plan.alone
        ]
        return torch.cat(found).view(-1, self.heads, self.head_width)

    def _attend_part(
        self, part: Part, store: Tensor, queries: Tensor, keys: Tensor, values: Tensor
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
        self, part: Part, asked: Tensor, store: Tensor, keys: Tensor, values: Tensor
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


def _seen(store: Tensor, slots: slice | Tensor) -> Tensor:
    """Keys and values of some slots: looked at where they lie if they lie in a row."""
    return store[:, :, slots] if isinstance(slots, slice) else store.index_select(2, slots)
