"""The product of a few rows with a matrix: what a step for a few requests waits for.

Nothing but the speed of the memory should count: weights are read once, in long pieces, by programs that
need nothing of each other; the norm before a product is computed again by each of them. One row is multiplied
number by number; up to sixteen fit one product of the tensor cores, which leaves more reads on their way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

from jaxtyping import Float
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton
from llava_next_video.engine.kernels.overlap import let_next_begin, overlapped, wait

MOST_ROWS = 16

TooLarge = triton.OutOfResources
"""A tile needs more memory of a multiprocessor than this GPU has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """How a product is cut.

    Attributes:
        out: Rows of the matrix that a program takes.
        width: How much of them it takes at a time.
        warps: Its threads in 32s.
        stages: How many reads are on their way at once, for the tensor cores; 0: one row, number by number.
    """

    out: int
    width: int
    warps: int
    stages: int = 0


ONE_ROW = (
    Tile(out=4, width=1024, warps=4),
    Tile(out=8, width=512, warps=4),
    Tile(out=16, width=256, warps=4),
    Tile(out=16, width=256, warps=4, stages=5),
)
"""Those worth trying for one row."""

FEW_ROWS = (
    Tile(out=16, width=256, warps=4, stages=5),
    Tile(out=32, width=256, warps=4, stages=4),
    Tile(out=64, width=128, warps=4, stages=5),
)
"""Those worth trying for two to sixteen."""


def few_rows(
    x: Float[Tensor, "rows width"],
    weight: Float[Tensor, "out width"],
    tile: Tile,
    *,
    bias: Float[Tensor, " out"] | None = None,
    norm: Float[Tensor, " width"] | None = None,
    epsilon: float = 0.0,
    onto: Float[Tensor, "rows out"] | None = None,
    gated: bool = False,
) -> Float[Tensor, "rows out_or_half"]:
    """The product of each row, after an RMS norm with the weights `norm` if given.

    Args:
        x: Sixteen rows at most; one where the tile has no stages.
        weight: The matrix.
        tile: How it is cut.
        bias: Added to the product.
        norm: Weights of a norm before.
        epsilon: Of the norm.
        onto: What the product is added to, in place.
        gated: Give `silu(first half) * second half` of the product.

    Raises:
        ValueError: a row or the matrix has gaps, or there are more rows than the tile takes.
    """
    if not (x.is_contiguous() and weight.is_contiguous() and (onto is None or onto.is_contiguous())):
        raise ValueError("rows and a matrix without gaps are needed; make them contiguous")
    rows, most = len(x), MOST_ROWS if tile.stages else 1
    if rows > most:
        raise ValueError(f"{rows} rows, and this tile takes {most}; use torch's product")
    width = weight.shape[1]
    count = len(weight) // 2 if gated else len(weight)
    out = x.new_empty(rows, count) if onto is None else onto
    pointers = (x, weight, x if norm is None else norm, x if bias is None else bias, out)
    switches = {
        "NORMED": norm is not None,
        "BIASED": bias is not None,
        "ADDED": onto is not None,
        "GATED": gated,
        **overlapped(x.device),
    }
    of_each = tile.out // 2 if gated else tile.out
    grid = (triton.cdiv(count, of_each),)
    shape = {"WIDTH": width, "OUT": of_each, "AT_ONCE": min(tile.width, triton.next_power_of_2(width))}
    if tile.stages:
        _few_rows_kernel[grid](
            *pointers,
            epsilon,
            rows,
            count,
            **shape,
            **switches,
            ROWS=MOST_ROWS,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    else:
        padded = triton.next_power_of_2(width) if norm is not None else 1
        _one_row_kernel[grid](
            *pointers, epsilon, count, **shape, **switches, PADDED=padded, num_warps=tile.warps
        )
    return out


@triton.jit
@no_type_check
def _piece(rows, start, WIDTH: tl.constexpr, AT_ONCE: tl.constexpr):
    """Some numbers of some rows of the matrix, which nobody reads again; nothing beyond its width."""
    at = start + tl.arange(0, AT_ONCE)
    return tl.load(rows + at[None, :], mask=(at < WIDTH)[None, :], other=0.0, eviction_policy="evict_first")


@triton.jit
@no_type_check
def _silu_times(gate, up, number: tl.constexpr):
    """`silu(gate) * up` of numbers in float32, rounded where torch rounds."""
    gate = gate.to(number).to(tl.float32)
    return (gate / (1.0 + tl.exp(-gate))).to(number).to(tl.float32) * up.to(number).to(tl.float32)


@triton.jit
@no_type_check
def _one_row_kernel(
    x,
    weight,
    norm,
    bias,
    out,
    epsilon,
    count,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    NORMED: tl.constexpr,
    BIASED: tl.constexpr,
    ADDED: tl.constexpr,
    GATED: tl.constexpr,
    OVERLAPPED: tl.constexpr,
    OUT: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Some rows of the matrix; with a gate, as many of its second half. A piece is always on its way."""
    let_next_begin(OVERLAPPED)
    number = x.dtype.element_ty
    row = tl.program_id(0) * OUT + tl.arange(0, OUT)
    there = row < count
    rows = weight + tl.minimum(row, count - 1).to(tl.int64)[:, None] * WIDTH
    half = rows + count.to(tl.int64) * WIDTH
    piece = _piece(rows, 0, WIDTH, AT_ONCE)
    total = tl.zeros([OUT, AT_ONCE], tl.float32)
    if GATED:
        second = _piece(half, 0, WIDTH, AT_ONCE)
        total_up = tl.zeros([OUT, AT_ONCE], tl.float32)
    wait(OVERLAPPED)
    unit = 1.0
    if NORMED:
        feature = tl.arange(0, PADDED)
        whole = tl.load(x + feature, mask=feature < WIDTH, other=0.0).to(tl.float32)
        unit = tl.rsqrt(tl.sum(whole * whole, 0) / WIDTH + epsilon)
    for start in range(0, WIDTH, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        inside = at < WIDTH
        some = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if NORMED:
            scale = tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
            some = ((some * unit).to(number).to(tl.float32) * scale).to(number).to(tl.float32)
        next_piece = _piece(rows, start + AT_ONCE, WIDTH, AT_ONCE)
        total += piece.to(tl.float32) * some[None, :]
        piece = next_piece
        if GATED:
            next_second = _piece(half, start + AT_ONCE, WIDTH, AT_ONCE)
            total_up += second.to(tl.float32) * some[None, :]
            second = next_second
    found = tl.sum(total, 1)
    if BIASED:
        found += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)
    if GATED:
        up = tl.sum(total_up, 1)
        if BIASED:
            up += tl.load(bias + count + row, mask=there, other=0.0).to(tl.float32)
        found = _silu_times(found, up, number)
    if ADDED:
        found += tl.load(out + row, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row, found.to(number), mask=there)


@triton.jit(do_not_specialize=["count_rows"])
@no_type_check
def _few_rows_kernel(
    x,
    weight,
    norm,
    bias,
    out,
    epsilon,
    count_rows,
    count,
    WIDTH: tl.constexpr,
    NORMED: tl.constexpr,
    BIASED: tl.constexpr,
    ADDED: tl.constexpr,
    GATED: tl.constexpr,
    OVERLAPPED: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """The same for up to sixteen rows, the last of which may be none."""
    let_next_begin(OVERLAPPED)
    wait(OVERLAPPED)
    number = x.dtype.element_ty
    place = tl.arange(0, ROWS)
    live = (place < count_rows)[:, None]
    given = x + place.to(tl.int64)[:, None] * WIDTH
    unit = tl.zeros([ROWS, 1], tl.float32)
    if NORMED:
        squares = tl.zeros([ROWS, AT_ONCE], tl.float32)
        for start in range(0, WIDTH, AT_ONCE):
            at = start + tl.arange(0, AT_ONCE)
            some = tl.load(given + at[None, :], mask=live & (at < WIDTH)[None, :], other=0.0).to(tl.float32)
            squares += some * some
        unit = tl.rsqrt(tl.sum(squares, 1) / WIDTH + epsilon)[:, None]
    row = tl.program_id(0) * OUT + tl.arange(0, OUT)
    rows = weight + tl.minimum(row, count - 1).to(tl.int64)[:, None] * WIDTH
    half = rows + count.to(tl.int64) * WIDTH
    found = tl.zeros([ROWS, OUT], tl.float32)
    up = tl.zeros([ROWS, OUT], tl.float32)
    for start in range(0, WIDTH, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        inside = at < WIDTH
        some = tl.load(given + at[None, :], mask=live & inside[None, :], other=0.0)
        if NORMED:
            scale = tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
            some = (some.to(tl.float32) * unit).to(number).to(tl.float32) * scale[None, :]
            some = some.to(number)
        piece = _piece(rows, start, WIDTH, AT_ONCE)
        found = tl.dot(some, tl.trans(piece), found, input_precision="ieee")
        if GATED:
            second = _piece(half, start, WIDTH, AT_ONCE)
            up = tl.dot(some, tl.trans(second), up, input_precision="ieee")
    there = row < count
    if BIASED:
        found += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)[None, :]
    if GATED:
        if BIASED:
            up += tl.load(bias + count + row, mask=there, other=0.0).to(tl.float32)[None, :]
        found = _silu_times(found, up, number)
    to = out + place.to(tl.int64)[:, None] * count + row[None, :]
    kept = live & there[None, :]
    if ADDED:
        found += tl.load(to, mask=kept, other=0.0).to(tl.float32)
    tl.store(to, found.to(number), mask=kept)
