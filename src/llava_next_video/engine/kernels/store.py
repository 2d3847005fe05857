"""Keys and values into their pages, and out again in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton
from llava_next_video.engine.kernels.overlap import let_next_begin, overlapped, wait
from llava_next_video.engine.plan import FIELDS, Field, Long

_FIELDS = tl.constexpr(FIELDS)
_POSITION = tl.constexpr(int(Field.POSITION))
_TABLE = tl.constexpr(int(Field.TABLE))
_LONG_TABLE = tl.constexpr(int(Field.LONG_TABLE))
_LONG_KEYS = tl.constexpr(int(Field.LONG_KEYS))
_LARGEST = tl.constexpr(448.0)  # of float8_e4m3fn
_LEAST = tl.constexpr(1e-10)
_GATHERED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPages:
    """Keys and values of one layer, so that what one head reads of a page lies in a row.

    Attributes:
        numbers: Keys, then values: 2 x pages x heads x tokens x width.
        scales: What 8-bit ones are multiplied by: one for each token and head; None: nothing.
    """

    numbers: Tensor
    scales: Tensor | None = None

    @property
    def key_value_heads(self) -> int:
        """Heads of keys."""
        return self.numbers.shape[2]

    @property
    def page_tokens(self) -> int:
        """Tokens of a page."""
        return self.numbers.shape[3]

    @property
    def pointers(self) -> tuple[Tensor, Tensor, int, int]:
        """Numbers and scales for a kernel, and how far in each the values lie behind the keys."""
        scales = self.numbers if self.scales is None else self.scales
        return self.numbers, scales, self.numbers.stride(0), scales.stride(0)


def store(
    keys_values: Float[Tensor, "tokens both width"],
    pages: LayerPages,
    rows: Int32[Tensor, "capacity fields"],
    tables: Int32[Tensor, "tables pages"],
    *,
    queries: Float[Tensor, "tokens heads width"] | None = None,
    turns: Float[Tensor, "tokens width"] | None = None,
) -> None:
    """Write keys and values of a step (their heads side by side) into the pages of their tokens.

    With `turns`, queries and keys are turned first, in place: rope costs no launch of its own.

    Args:
        keys_values: Of all rows of the step.
        pages: Where they go.
        rows: The table of the step.
        tables: The page tables that it names.
        queries: What else to turn.
        turns: Cosine and sine of each pair of features in each row, for interleaved heads.
    """
    tokens, both, width = keys_values.shape
    heads = both // 2
    asked = keys_values if queries is None or turns is None else queries
    blocks = 0 if asked is keys_values else triton.cdiv(asked.shape[1], heads)
    _store_kernel[(tokens, 2 + blocks)](
        keys_values,
        asked,
        keys_values if turns is None else turns,
        *pages.pointers,
        rows,
        tables,
        keys_values.stride(0),
        asked.stride(0),
        tables.stride(0),
        TURNED=turns is not None,
        SCALED=pages.scales is not None,
        QUERY_HEADS=asked.shape[1],
        HEADS=heads,
        PADDED_HEADS=triton.next_power_of_2(heads),
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        PAGE=pages.page_tokens,
        **overlapped(keys_values.device),
    )


@triton.jit(do_not_specialize=["table_width"])
@no_type_check
def _store_kernel(
    keys_values,
    queries,
    turns,
    numbers,
    scales,
    behind,
    scales_behind,
    rows,
    tables,
    stride,
    query_stride,
    table_width,
    TURNED: tl.constexpr,
    SCALED: tl.constexpr,
    QUERY_HEADS: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE: tl.constexpr,
    OVERLAPPED: tl.constexpr,
):
    """Keys (part 0), values (part 1) or some query heads (other parts) of one row."""
    let_next_begin(OVERLAPPED)
    row, part = tl.program_id(0), tl.program_id(1)
    head, feature = tl.arange(0, PADDED_HEADS), tl.arange(0, PADDED)
    position = tl.load(rows + row * _FIELDS + _POSITION)
    table = tables + tl.load(rows + row * _FIELDS + _TABLE) * table_width
    page = tl.load(table + position // PAGE).to(tl.int64)
    inside = (head < HEADS)[:, None] & (feature < WIDTH)[None, :]
    if part < 2:
        source = keys_values + row.to(tl.int64) * stride + part * (HEADS * WIDTH)
    else:
        asked = (part - 2) * HEADS
        source = queries + row.to(tl.int64) * query_stride + asked * WIDTH
        inside = inside & (asked + head < QUERY_HEADS)[:, None]
    offset = head[:, None] * WIDTH + feature[None, :]
    wait(OVERLAPPED)
    x = tl.load(source + offset, mask=inside, other=0.0).to(tl.float32)
    if TURNED:
        if part != 1:
            turn = tl.load(turns + row * WIDTH + feature, mask=feature < WIDTH, other=0.0)
            cosine, sine = tl.split(tl.reshape(turn, (1, PADDED // 2, 2)))
            even, odd = tl.split(tl.reshape(x, (PADDED_HEADS, PADDED // 2, 2)))
            x = tl.reshape(
                tl.join(even * cosine - odd * sine, even * sine + odd * cosine), (PADDED_HEADS, PADDED)
            )
            tl.store(source + offset, x.to(keys_values.dtype.element_ty), mask=inside)
    if part < 2:
        slot = (page * HEADS + head) * PAGE + position % PAGE
        if SCALED:
            scale = unit_of(x, 1)
            tl.store(scales + part.to(tl.int64) * scales_behind + slot, scale, mask=head < HEADS)
            x = x / scale[:, None]
        to = numbers + part.to(tl.int64) * behind
        tl.store(to + slot[:, None] * WIDTH + feature[None, :], x.to(numbers.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def unit_of(x, AXIS: tl.constexpr):
    """What rows of floats are divided by, so that the largest of each is the largest that 8 bits hold."""
    return tl.maximum(tl.max(tl.abs(x), AXIS), _LEAST) / _LARGEST


def gather(
    pages: LayerPages,
    rows: Int32[Tensor, "capacity fields"],
    tables: Int32[Tensor, "tables pages"],
    long: Long,
    dtype: torch.dtype,
) -> Float[Tensor, "2 tokens heads width"]:
    """Keys and values of all that long chunks look at, one chunk behind the other."""
    heads, width = pages.key_value_heads, pages.numbers.shape[4]
    out = torch.empty(2, sum(long.keys), heads, width, dtype=dtype, device=pages.numbers.device)
    _gather_kernel[(len(long.keys), triton.cdiv(max(long.keys), _GATHERED), 2 * heads)](
        *pages.pointers,
        rows,
        tables,
        out,
        out.stride(0),
        tables.stride(0),
        SCALED=pages.scales is not None,
        HEADS=heads,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        PAGE=pages.page_tokens,
        TOKENS=_GATHERED,
    )
    return out


@triton.jit(do_not_specialize=["table_width"])
@no_type_check
def _gather_kernel(
    numbers,
    scales,
    behind,
    scales_behind,
    rows,
    tables,
    out,
    half,
    table_width,
    SCALED: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    PAGE: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Some tokens of one chunk and one head of keys or values."""
    chunk, block, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kind, head = part // HEADS, part % HEADS
    begin = tl.load(rows + chunk * _FIELDS + _LONG_KEYS)
    length = tl.load(rows + (chunk + 1) * _FIELDS + _LONG_KEYS) - begin
    token, feature = block * TOKENS + tl.arange(0, TOKENS), tl.arange(0, PADDED)
    there = token < length
    table = tables + tl.load(rows + chunk * _FIELDS + _LONG_TABLE) * table_width
    page = tl.load(table + token // PAGE, mask=there, other=0).to(tl.int64)
    slot = (page * HEADS + head) * PAGE + token % PAGE
    inside = there[:, None] & (feature < WIDTH)[None, :]
    source = numbers + kind.to(tl.int64) * behind
    x = tl.load(source + slot[:, None] * WIDTH + feature[None, :], mask=inside, other=0.0)
    if SCALED:
        unit = tl.load(scales + kind.to(tl.int64) * scales_behind + slot, mask=there, other=0.0)
        x = x.to(tl.float32) * unit[:, None]
    to = kind.to(tl.int64) * half + ((begin + token).to(tl.int64) * HEADS + head)[:, None] * WIDTH
    tl.store(out + to + feature[None, :], x.to(out.dtype.element_ty), mask=inside)
