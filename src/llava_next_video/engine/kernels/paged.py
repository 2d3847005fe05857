"""Attention to keys and values in pages.

A bundle is some rows of the step times the query heads of one key head. What it looks at is cut into splits,
each of which one program reads; a second kernel merges them by the logs of their sums. A bundle of one row is
a request that generates; a bundle of many rows reads the pages with which all of them begin.
"""

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton
from llava_next_video.engine.kernels.launch import LOG2_E, Launch
from llava_next_video.engine.kernels.overlap import let_next_begin, overlapped, wait
from llava_next_video.engine.kernels.store import LayerPages
from llava_next_video.engine.plan import FIELDS, Field, Plan

_FIELDS = tl.constexpr(FIELDS)
_POSITION = tl.constexpr(int(Field.POSITION))
_TABLE = tl.constexpr(int(Field.TABLE))
_COVERED = tl.constexpr(int(Field.COVERED))
_OWN_FIRST = tl.constexpr(int(Field.OWN_FIRST))
_OWN_COUNT = tl.constexpr(int(Field.OWN_COUNT))
_SHARED_FIRST = tl.constexpr(int(Field.SHARED_FIRST))
_SHARED_COUNT = tl.constexpr(int(Field.SHARED_COUNT))
_SHARED_END = tl.constexpr(int(Field.SHARED_END))
_SHARED_ROW = tl.constexpr(int(Field.SHARED_ROW))


def attend_paged(
    queries: Float[Tensor, "tokens heads width"],
    pages: LayerPages,
    rows: Int32[Tensor, "capacity fields"],
    tables: Int32[Tensor, "tables pages"],
    plan: Plan,
    out: Float[Tensor, "tokens heads width"],
    *,
    window: int | None,
    launch: Launch,
) -> None:
    """Attention of the rows in bundles, written to their places in `out`.

    Args:
        queries: Of all rows of the step.
        pages: Keys and values of the layer; those of the step are written already.
        rows: The table of the step.
        tables: The page tables that it names.
        plan: Its shape.
        out: The result.
        window: How many tokens a row looks back, itself included; None: all.
        launch: How to launch.
    """
    if not plan.own:
        return
    heads, width = queries.shape[1:]
    own = launch.splits(plan.own, pages.key_value_heads)
    columns = own + launch.splits(plan.shared, pages.key_value_heads)
    direct = columns == 1
    size = (0, 0, 0, 0) if direct else (plan.paged_rows, columns, heads, width)
    skipped_from = plan.rows if plan.long is None else plan.long.first
    partial = torch.empty(size, dtype=torch.float32, device=queries.device)
    sums = torch.empty(size[:3], dtype=torch.float32, device=queries.device)
    overlap = overlapped(queries.device)
    parts = [(False, plan.own, plan.own_rows, 0, own)]
    if plan.shared:
        parts.append((True, plan.shared, plan.shared_rows, own, columns - own))
    for shared, bundles, product_rows, first_column, splits in parts:
        _split_kernel[(bundles, pages.key_value_heads, splits)](
            queries,
            *pages.pointers,
            rows,
            tables,
            out if direct else partial,
            out if direct else sums,
            queries.stride(0),
            tables.stride(0),
            width**-0.5 * LOG2_E,
            first_column,
            columns,
            splits,
            skipped_from,
            plan.rows - plan.paged_rows,
            SHARED=shared,
            DIRECT=direct,
            SCALED=pages.scales is not None,
            WINDOW=window or 0,
            KV_HEADS=pages.key_value_heads,
            GROUP=heads // pages.key_value_heads,
            WIDTH=width,
            PADDED=triton.next_power_of_2(width),
            PAGE=pages.page_tokens,
            ROWS=product_rows,
            TOKENS=launch.tokens,
            **overlap,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    if not direct:
        _merge_kernel[(plan.paged_rows, heads)](
            partial,
            sums,
            out,
            rows,
            own,
            columns,
            skipped_from,
            plan.rows - plan.paged_rows,
            HEADS=heads,
            WIDTH=width,
            PADDED=triton.next_power_of_2(width),
            COLUMNS=triton.next_power_of_2(columns),
            **overlap,
            num_warps=2,
        )


@triton.jit(do_not_specialize=["first_column", "columns", "splits", "table_width", "skipped_from", "skipped"])
@no_type_check
def _split_kernel(
    queries,
    numbers,
    scales,
    behind,
    scales_behind,
    rows,
    tables,
    partial,
    sums,
    query_stride,
    table_width,
    scale,
    first_column,
    columns,
    splits,
    skipped_from,
    skipped,
    SHARED: tl.constexpr,
    DIRECT: tl.constexpr,
    SCALED: tl.constexpr,
    WINDOW: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    OVERLAPPED: tl.constexpr,
):
    """One split of what one bundle looks at, for one key head. Logs are to the base of two."""
    let_next_begin(OVERLAPPED)
    bundle, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    place = tl.arange(0, ROWS)
    feature = tl.arange(0, PADDED)
    if SHARED:
        first = tl.load(rows + bundle * _FIELDS + _SHARED_FIRST)
        count = tl.load(rows + bundle * _FIELDS + _SHARED_COUNT)
        live = place // GROUP < count
        row = tl.load(rows + (first + place // GROUP) * _FIELDS + _SHARED_ROW, mask=live, other=0)
        one = tl.load(rows + first * _FIELDS + _SHARED_ROW)
    else:
        first = tl.load(rows + bundle * _FIELDS + _OWN_FIRST)
        count = tl.load(rows + bundle * _FIELDS + _OWN_COUNT)
        live = place // GROUP < count
        row = first + place // GROUP
        one = first
    position = tl.load(rows + row * _FIELDS + _POSITION, mask=live, other=-1)
    if SHARED:
        begin = 0
        end = tl.where(count > 0, tl.load(rows + bundle * _FIELDS + _SHARED_END), 0)
    else:
        begin = tl.load(rows + one * _FIELDS + _COVERED)
        end = tl.max(position, 0) + 1
    if WINDOW > 0:
        begin = tl.maximum(begin, tl.min(tl.where(live, position, 2147483647), 0) - WINDOW + 1)
    length = tl.maximum(end - begin, 0)
    each = tl.cdiv(tl.cdiv(length, splits), TOKENS) * TOKENS
    low = begin + split * each
    high = tl.minimum(low + each, end)

    table = tables + tl.load(rows + one * _FIELDS + _TABLE) * table_width
    asked = head * GROUP + place % GROUP
    wide = feature < WIDTH
    wait(OVERLAPPED)
    query = tl.load(
        queries + row.to(tl.int64)[:, None] * query_stride + asked[:, None] * WIDTH + feature[None, :],
        mask=live[:, None] & wide[None, :],
        other=0.0,
    )
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    found = tl.zeros([ROWS, PADDED], tl.float32)
    for start in range(low, high, TOKENS):
        token = start + tl.arange(0, TOKENS)
        there = token < high
        page = tl.load(table + token // PAGE, mask=there, other=0).to(tl.int64)
        slot = (page * KV_HEADS + head) * PAGE + token % PAGE
        place_of = slot[:, None] * WIDTH + feature[None, :]
        key = tl.load(numbers + place_of, mask=there[:, None] & wide[None, :], other=0.0)
        score = tl.dot(query, tl.trans(key.to(query.dtype)), input_precision="ieee") * scale
        if SCALED:
            score = score * tl.load(scales + slot, mask=there, other=0.0)[None, :]
        seen = there[None, :] & (token[None, :] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (token[None, :] > position[:, None] - WINDOW)
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        against = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp2(score - against[:, None])
        fade = tl.exp2(top - against)
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(numbers + behind + place_of, mask=there[:, None] & wide[None, :], other=0.0)
        if SCALED:
            weight = weight * tl.load(scales + scales_behind + slot, mask=there, other=0.0)[None, :]
        found = found * fade[:, None]
        found += tl.dot(weight.to(query.dtype), value.to(query.dtype), input_precision="ieee")
        top = higher

    some = tl.where(total > 0, total, 1.0)
    found = found / some[:, None]
    if DIRECT:
        at = row.to(tl.int64) * (KV_HEADS * GROUP) + asked
    else:
        kept = tl.where(row >= skipped_from, row - skipped, row).to(tl.int64)
        at = (kept * columns + first_column + split) * (KV_HEADS * GROUP) + asked
        tl.store(sums + at, tl.where(total > 0, top + tl.log2(some), float("-inf")), mask=live)
    tl.store(
        partial + at[:, None] * WIDTH + feature[None, :],
        found.to(partial.dtype.element_ty),
        mask=live[:, None] & wide[None, :],
    )


@triton.jit(do_not_specialize=["own", "columns", "skipped_from", "skipped"])
@no_type_check
def _merge_kernel(
    partial,
    sums,
    out,
    rows,
    own,
    columns,
    skipped_from,
    skipped,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    COLUMNS: tl.constexpr,
    OVERLAPPED: tl.constexpr,
):
    """The splits of one row and head together; only rows with a shared bundle have all columns."""
    let_next_begin(OVERLAPPED)
    kept, head = tl.program_id(0), tl.program_id(1)
    row = tl.where(kept >= skipped_from, kept + skipped, kept)
    column = tl.arange(0, COLUMNS)
    feature = tl.arange(0, PADDED)
    covered = tl.load(rows + row * _FIELDS + _COVERED)
    there = (column < own) | ((column < columns) & (covered > 0))
    at = (kept.to(tl.int64) * columns + column) * HEADS + head
    wait(OVERLAPPED)
    sum_of = tl.load(sums + at, mask=there, other=float("-inf"))
    weight = tl.exp2(sum_of - tl.max(sum_of, 0))
    found = tl.load(
        partial + at[:, None] * WIDTH + feature[None, :],
        mask=(weight > 0)[:, None] & (feature < WIDTH)[None, :],
        other=0.0,
    )
    merged = tl.sum(found * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(
        out + (row.to(tl.int64) * HEADS + head) * WIDTH + feature,
        merged.to(out.dtype.element_ty),
        mask=feature < WIDTH,
    )
