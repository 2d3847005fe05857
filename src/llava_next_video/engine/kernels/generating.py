"""A step of requests that generate, between two products, in one launch.

Each program reads one split of what one row looks at, for one key head, while the kernel before it still
ends: those pages hold earlier tokens only. Then it turns the queries, and the last split brings in the row's
own token, which goes from there into its page. Who finishes last for a row and head merges the splits.
"""

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton
from llava_next_video.engine.kernels.launch import LOG2_E, Launch
from llava_next_video.engine.kernels.overlap import let_next_begin, overlapped, wait
from llava_next_video.engine.kernels.store import LayerPages, unit_of
from llava_next_video.engine.plan import FIELDS, Field, Plan

_FIELDS = tl.constexpr(FIELDS)
_POSITION = tl.constexpr(int(Field.POSITION))
_TABLE = tl.constexpr(int(Field.TABLE))


def attend_generating(
    queries: Float[Tensor, "tokens heads width"],
    keys_values: Float[Tensor, "tokens both width"],
    turns: Float[Tensor, "tokens width"] | None,
    pages: LayerPages,
    rows: Int32[Tensor, "capacity fields"],
    tables: Int32[Tensor, "tables pages"],
    plan: Plan,
    arrived: Int32[Tensor, " counters"],
    *,
    window: int | None,
    launch: Launch,
) -> Float[Tensor, "tokens heads width"]:
    """Attention of rows that each are the next token of another request; their keys and values are kept.

    Args:
        queries, keys_values: Of all rows of the step; they stay as they are.
        turns: Cosine and sine of each pair of features in each row; None: they are turned already.
        pages: Keys and values of the layer, where those of the step are written, too.
        rows: The table of the step.
        tables: The page tables that it names.
        plan: Its shape.
        arrived: A zero for each row and key head, as they are again afterwards.
        window: How many tokens a row looks back, itself included; None: all.
        launch: How to launch.
    """
    out = torch.empty_like(queries, memory_format=torch.contiguous_format)
    heads, width = queries.shape[1:]
    group = heads // pages.key_value_heads
    splits = launch.splits(plan.rows, pages.key_value_heads)
    size = (plan.rows, splits, heads, width) if splits > 1 else (0, 0, 0, 0)
    partial = torch.empty(size, dtype=torch.float32, device=queries.device)
    sums = torch.empty(size[:3], dtype=torch.float32, device=queries.device)
    _generating_kernel[(plan.rows, pages.key_value_heads, splits)](
        queries,
        keys_values,
        queries if turns is None else turns,
        *pages.pointers,
        rows,
        tables,
        out,
        partial,
        sums,
        arrived,
        queries.stride(0),
        keys_values.stride(0),
        tables.stride(0),
        width**-0.5 * LOG2_E,
        splits,
        TURNED=turns is not None,
        SCALED=pages.scales is not None,
        WINDOW=window or 0,
        KV_HEADS=pages.key_value_heads,
        GROUP=group,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        PAGE=pages.page_tokens,
        ROWS=1 if group == 1 else plan.own_rows,
        TOKENS=launch.tokens,
        LEAST=launch.least,
        COLUMNS=triton.next_power_of_2(splits),
        **overlapped(queries.device),
        num_warps=launch.warps,
        num_stages=1,
    )
    return out


@triton.jit
@no_type_check
def _slots(table, token, end, head, KV_HEADS: tl.constexpr, PAGE: tl.constexpr):
    """Where these tokens lie, counted in tokens of one head."""
    page = tl.load(table + token // PAGE, mask=token < end, other=0).to(tl.int64)
    return (page * KV_HEADS + head) * PAGE + token % PAGE


@triton.jit
@no_type_check
def _read(numbers, scales, slot, there, SCALED: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Keys or values of some tokens, and what they are multiplied by."""
    feature = tl.arange(0, PADDED)
    inside = there[:, None] & (feature < WIDTH)[None, :]
    found = tl.load(numbers + slot[:, None] * WIDTH + feature[None, :], mask=inside, other=0.0)
    unit = tl.load(scales + slot, mask=there, other=0.0) if SCALED else 1.0
    return found, unit


@triton.jit
@no_type_check
def _read_turned(x, turn, offset, inside, TURNED: tl.constexpr):
    """Heads in float32, whose pairs of features are turned by the cosines and sines at `turn`."""
    found = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
    if TURNED:
        other = tl.load(x + (offset ^ 1), mask=inside, other=0.0).to(tl.float32)
        cosine = tl.load(turn, mask=inside, other=0.0)
        sine = tl.load(turn + 1, mask=inside, other=0.0)
        found = found * cosine + other * tl.where(offset % 2 == 0, -sine, sine)
    return found


@triton.jit
@no_type_check
def _seen_alone(query, key, key_unit, value, value_unit, scale, there, top, total, found):
    """One query and some tokens, number by number; each place of a token has a softmax of its own."""
    score = tl.sum(query.to(tl.float32)[None, :] * key.to(tl.float32), 1) * scale * key_unit
    score = tl.where(there, score, float("-inf"))
    higher = tl.maximum(top, score)
    against = tl.where(higher == float("-inf"), 0.0, higher)
    weight, fade = tl.exp2(score - against), tl.exp2(top - against)
    found = found * fade[:, None] + (weight * value_unit)[:, None] * value.to(tl.float32)
    return higher, total * fade + weight, found


@triton.jit
@no_type_check
def _seen_together(query, key, key_unit, value, value_unit, scale, there, top, total, found):
    """Several queries and some tokens, by products of matrices."""
    score = tl.dot(query, tl.trans(key.to(query.dtype)), input_precision="ieee") * scale
    score = tl.where(there[None, :], score * key_unit, float("-inf"))
    higher = tl.maximum(top, tl.max(score, 1))
    weight, fade = tl.exp2(score - higher[:, None]), tl.exp2(top - higher)
    total = total * fade + tl.sum(weight, 1)
    weight = (weight * value_unit).to(query.dtype)
    found = found * fade[:, None] + tl.dot(weight, value.to(query.dtype), input_precision="ieee")
    return higher, total, found


@triton.jit
@no_type_check
def _merged(partial, sums, at, there, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The splits of one query head together; what other programs wrote is not in this one's cache."""
    feature = tl.arange(0, PADDED)
    sum_of = tl.load(sums + at, mask=there, other=float("-inf"), cache_modifier=".cg")
    inside = there[:, None] & (feature < WIDTH)[None, :]
    found = tl.load(
        partial + at[:, None] * WIDTH + feature[None, :], mask=inside, other=0.0, cache_modifier=".cg"
    )
    weight = tl.exp2(sum_of - tl.max(sum_of, 0))
    return tl.sum(found * weight[:, None], 0) / tl.sum(weight, 0)


@triton.jit(do_not_specialize=["table_width", "splits"])
@no_type_check
def _generating_kernel(
    queries,
    keys_values,
    turns,
    numbers,
    scales,
    behind,
    scales_behind,
    rows,
    tables,
    out,
    partial,
    sums,
    arrived,
    query_stride,
    stride,
    table_width,
    scale,
    splits,
    TURNED: tl.constexpr,
    SCALED: tl.constexpr,
    WINDOW: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    LEAST: tl.constexpr,
    COLUMNS: tl.constexpr,
    OVERLAPPED: tl.constexpr,
):
    """One split of what one row looks at, for one key head. Logs are to the base of two."""
    let_next_begin(OVERLAPPED)
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(rows + row * _FIELDS + _POSITION)
    table = tables + tl.load(rows + row * _FIELDS + _TABLE) * table_width
    begin = tl.maximum(position - WINDOW + 1, 0) if WINDOW > 0 else 0
    each = tl.maximum(tl.cdiv(tl.cdiv(position - begin, splits), TOKENS) * TOKENS, LEAST)
    used = tl.maximum(tl.cdiv(position - begin, each), 1)
    if split >= used:
        return
    last = split == used - 1
    low = begin + split * each
    high = tl.minimum(low + each, position)
    token, feature = low + tl.arange(0, TOKENS), tl.arange(0, PADDED)
    slot = _slots(table, token, high, head, KV_HEADS, PAGE)
    key, key_unit = _read(numbers, scales, slot, token < high, SCALED, WIDTH, PADDED)
    value, value_unit = _read(
        numbers + behind, scales + scales_behind, slot, token < high, SCALED, WIDTH, PADDED
    )
    slot = _slots(table, token + TOKENS, high, head, KV_HEADS, PAGE)
    page = tl.load(table + position // PAGE).to(tl.int64)
    wide = feature < WIDTH
    if ROWS == 1:
        member, offset, inside = 0, feature, wide
    else:
        member = tl.arange(0, ROWS)
        offset = member[:, None] * WIDTH + feature[None, :]
        inside = (member < GROUP)[:, None] & wide[None, :]

    wait(OVERLAPPED)
    turn = turns + row * WIDTH + feature // 2 * 2
    of_query = turn if ROWS == 1 else turn[None, :] + member[:, None] * 0
    number: tl.constexpr = queries.dtype.element_ty
    asked = queries + row.to(tl.int64) * query_stride + head * GROUP * WIDTH
    query = _read_turned(asked, of_query, offset, inside, TURNED).to(number)
    own = keys_values + row.to(tl.int64) * stride + head * WIDTH
    own_key = _read_turned(own, turn, feature, wide & last, TURNED)
    own_value = tl.load(own + KV_HEADS * WIDTH + feature, mask=wide & last, other=0.0).to(tl.float32)
    own_key_unit, own_value_unit = 1.0, 1.0
    if SCALED:
        own_key_unit, own_value_unit = unit_of(own_key, 0), unit_of(own_value, 0)
    own_key = (own_key / own_key_unit).to(numbers.dtype.element_ty)
    own_value = (own_value / own_value_unit).to(numbers.dtype.element_ty)
    if last:
        kept = (page * KV_HEADS + head) * PAGE + position % PAGE
        tl.store(numbers + kept * WIDTH + feature, own_key, mask=wide)
        tl.store(numbers + behind + kept * WIDTH + feature, own_value, mask=wide)
        if SCALED:
            tl.store(scales + kept, own_key_unit)
            tl.store(scales + scales_behind + kept, own_value_unit)

    LANES: tl.constexpr = TOKENS if ROWS == 1 else ROWS
    top = tl.full([LANES], float("-inf"), tl.float32)
    total = tl.zeros([LANES], tl.float32)
    found = tl.zeros([LANES, PADDED], tl.float32)
    for start in range(low, high, TOKENS):
        token = start + tl.arange(0, TOKENS)
        then = token + TOKENS
        next_key, next_key_unit = _read(numbers, scales, slot, then < high, SCALED, WIDTH, PADDED)
        next_value, next_value_unit = _read(
            numbers + behind, scales + scales_behind, slot, then < high, SCALED, WIDTH, PADDED
        )
        slot = _slots(table, then + TOKENS, high, head, KV_HEADS, PAGE)
        if ROWS == 1:
            top, total, found = _seen_alone(
                query, key, key_unit, value, value_unit, scale, token < high, top, total, found
            )
        else:
            top, total, found = _seen_together(
                query, key, key_unit, value, value_unit, scale, token < high, top, total, found
            )
        key, key_unit, value, value_unit = next_key, next_key_unit, next_value, next_value_unit

    # The row's own token, in the last split only.
    own_key = own_key.to(tl.float32)
    own_value = own_value.to(tl.float32) * own_value_unit
    if ROWS == 1:
        own_score = tl.sum(query.to(tl.float32) * own_key, 0) * own_key_unit * scale
        own_score = tl.where(last, own_score, float("-inf"))
        highest = tl.maximum(tl.max(top, 0), own_score)
        fade, weight = tl.exp2(top - highest), tl.exp2(own_score - highest)
        total = tl.sum(total * fade, 0) + weight
        found = (tl.sum(found * fade[:, None], 0) + weight * own_value) / total
    else:
        own_score = tl.sum(query.to(tl.float32) * own_key[None, :], 1) * own_key_unit * scale
        own_score = tl.where(last, own_score, float("-inf"))
        highest = tl.maximum(top, own_score)
        fade, weight = tl.exp2(top - highest), tl.exp2(own_score - highest)
        total = total * fade + weight
        found = (found * fade[:, None] + weight[:, None] * own_value[None, :]) / total[:, None]

    heads: tl.constexpr = KV_HEADS * GROUP
    first = row.to(tl.int64) * heads + head * GROUP
    if used == 1:
        tl.store(out + first * WIDTH + offset, found.to(number), mask=inside)
    else:
        at = (row.to(tl.int64) * splits + split) * heads + head * GROUP
        tl.store(sums + at + member, highest + tl.log2(total), mask=member < GROUP)
        tl.store(partial + at * WIDTH + offset, found, mask=inside)
        tl.debug_barrier()  # one thread tells for all that they have written
        before = tl.atomic_add(arrived + row * KV_HEADS + head, 1, sem="acq_rel", scope="gpu")
        if before == used - 1:
            tl.store(arrived + row * KV_HEADS + head, 0)
            column = tl.arange(0, COLUMNS)
            for one in tl.static_range(GROUP):
                of_one = (row.to(tl.int64) * splits + column) * heads + head * GROUP + one
                merged = _merged(partial, sums, of_one, column < used, WIDTH, PADDED)
                tl.store(out + (first + one) * WIDTH + feature, merged.to(number), mask=wide)
