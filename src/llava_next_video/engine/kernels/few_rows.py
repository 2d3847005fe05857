"""The product of a few rows with a matrix: what a step for a few requests waits for.

Nothing but the speed of the memory should count: weights are read once, in long pieces, by programs that
need nothing of each other. One row is multiplied number by number, and the norm before the product is
computed again by each program; up to sixteen rows fit one product of the tensor cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

from jaxtyping import Float
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton
from llava_next_video.engine.kernels.fused import rms_norm
from llava_next_video.engine.kernels.overlap import let_next_begin, overlapped, wait
from llava_next_video.engine.linear_wide import MOST_ROWS

TooLarge = triton.OutOfResources
"""A cut needs more memory of a multiprocessor than this GPU has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a product is cut.

    Attributes:
        out: Rows of the matrix that a program takes.
        width: How much of them it takes at a time.
        ahead: How many such pieces are on their way while one is used.
        rows: Rows of the product at most: 1, or 16 for the tensor cores.
    """

    out: int
    width: int
    ahead: int
    rows: int = 1


ONE_ROW = (
    Cut(out=4, width=1024, ahead=1),
    Cut(out=8, width=512, ahead=1),
    Cut(out=8, width=512, ahead=2),
)
"""Those worth trying for one row: each was the fastest for some matrix of a 7B on an H200."""

FEW_ROWS = (Cut(out=32, width=256, ahead=3, rows=MOST_ROWS),)
"""Those worth trying for two to sixteen."""

_WARPS = 4


def few_rows(
    x: Float[Tensor, "rows width"],
    weight: Float[Tensor, "out width"],
    cut: Cut,
    *,
    bias: Float[Tensor, " out"] | None = None,
    norm: Float[Tensor, " width"] | None = None,
    epsilon: float = 0.0,
    onto: Float[Tensor, "rows out"] | None = None,
    gated: bool = False,
) -> Float[Tensor, "rows out_or_half"]:
    """The product of each row, after an RMS norm with the weights `norm` if given.

    Args:
        x: As many rows as the cut takes at most.
        weight: The matrix.
        cut: How it is cut.
        bias: Added to the product.
        norm: Weights of a norm before.
        epsilon: Of the norm.
        onto: What the product is added to, in place.
        gated: Give `silu(first half) * second half` of the product.

    Raises:
        ValueError: rows or the matrix have gaps, or there are more rows than the cut takes.
    """
    if not (x.is_contiguous() and weight.is_contiguous() and (onto is None or onto.is_contiguous())):
        raise ValueError("rows and a matrix without gaps are needed; make them contiguous")
    if gated and onto is not None:
        raise ValueError("a gate halves the row, so it cannot be added onto one; give gated or onto")
    rows = len(x)
    if rows > cut.rows:
        raise ValueError(f"{rows} rows, and this cut takes {cut.rows}; use torch's product")
    count, width = weight.shape
    out = x.new_empty(rows, count // 2 if gated else count) if onto is None else onto
    shape = {"WIDTH": width, "OUT": cut.out, "AT_ONCE": min(cut.width, triton.next_power_of_2(width))}
    shape |= {"BIASED": bias is not None, "ADDED": onto is not None, "GATED": gated, **overlapped(x.device)}
    given = x if bias is None else bias
    grid = (triton.cdiv(count, cut.out),)
    if cut.rows > 1:
        x = x if norm is None else rms_norm(x, norm, epsilon)
        _few_rows_kernel[grid](
            x,
            weight,
            given,
            out,
            rows,
            count,
            **shape,
            ROWS=cut.rows,
            num_warps=_WARPS,
            num_stages=cut.ahead + 1,
        )
        return out
    _one_row_kernel[grid](
        x,
        weight,
        given,
        out,
        x if norm is None else norm,
        epsilon,
        count,
        **shape,
        NORMED=norm is not None,
        PADDED=1 if norm is None else triton.next_power_of_2(width),
        AHEAD=cut.ahead,
        num_warps=_WARPS,
    )
    return out


@triton.jit
@no_type_check
def _rows_of(count, OUT: tl.constexpr, GATED: tl.constexpr):
    """Which rows of the matrix this program takes; with a gate, one of each half in turn."""
    place = tl.program_id(0) * OUT + tl.arange(0, OUT)
    return place // 2 + place % 2 * (count // 2) if GATED else place


@triton.jit
@no_type_check
def _piece(rows, there, start, WIDTH: tl.constexpr, AT_ONCE: tl.constexpr):
    """Some numbers of these rows of the matrix, which nobody reads again; nothing beyond its width."""
    at = start + tl.arange(0, AT_ONCE)
    inside = there[:, None] & (at < WIDTH)[None, :]
    return tl.load(rows + at[None, :], mask=inside, other=0.0, eviction_policy="evict_first")


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
    bias,
    out,
    norm,
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
    AHEAD: tl.constexpr,
):
    """Some rows of the matrix, of which one or two pieces are always on their way."""
    let_next_begin(OVERLAPPED)
    number = x.dtype.element_ty
    row = _rows_of(count, OUT, GATED)
    there = row < count
    rows = weight + row.to(tl.int64)[:, None] * WIDTH
    piece = _piece(rows, there, 0, WIDTH, AT_ONCE)
    if AHEAD == 2:
        second = _piece(rows, there, AT_ONCE, WIDTH, AT_ONCE)
    to, kept = row, there
    if BIASED:
        added = tl.load(bias + row, mask=there, other=0.0, eviction_policy="evict_first").to(tl.float32)
    if GATED:
        to = tl.program_id(0) * (OUT // 2) + tl.arange(0, OUT // 2)
        kept = to < count // 2
    wait(OVERLAPPED)
    if ADDED:
        before = tl.load(out + to, mask=kept, other=0.0).to(tl.float32)
    unit = 1.0
    if NORMED:
        feature = tl.arange(0, PADDED)
        whole = tl.load(x + feature, mask=feature < WIDTH, other=0.0).to(tl.float32)
        unit = tl.rsqrt(tl.sum(whole * whole, 0) / WIDTH + epsilon)
    total = tl.zeros([OUT, AT_ONCE], tl.float32)
    at = tl.arange(0, AT_ONCE)
    some = tl.load(x + at, mask=at < WIDTH, other=0.0)
    for start in range(0, WIDTH, AT_ONCE):
        last = _piece(rows, there, start + AHEAD * AT_ONCE, WIDTH, AT_ONCE)
        then = start + AT_ONCE + at
        following = tl.load(x + then, mask=then < WIDTH, other=0.0)
        factor = some.to(tl.float32)
        if NORMED:
            scale = tl.load(norm + start + at, mask=start + at < WIDTH, other=0.0).to(tl.float32)
            factor = ((factor * unit).to(number).to(tl.float32) * scale).to(number).to(tl.float32)
        total += piece.to(tl.float32) * factor[None, :]
        some = following
        if AHEAD == 2:
            piece = second
            second = last
        else:
            piece = last
    found = tl.sum(total, 1)
    if BIASED:
        found += added
    if GATED:
        gate, up = tl.split(tl.reshape(found, (OUT // 2, 2)))
        found = _silu_times(gate, up, number)
    if ADDED:
        found += before
    tl.store(out + to, found.to(number), mask=kept)


@triton.jit(do_not_specialize=["count_rows"])
@no_type_check
def _few_rows_kernel(
    x,
    weight,
    bias,
    out,
    count_rows,
    count,
    WIDTH: tl.constexpr,
    BIASED: tl.constexpr,
    ADDED: tl.constexpr,
    GATED: tl.constexpr,
    OVERLAPPED: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """The same for up to sixteen rows."""
    let_next_begin(OVERLAPPED)
    number = x.dtype.element_ty
    place, first = tl.arange(0, ROWS), tl.arange(0, AT_ONCE)
    live = (place < count_rows)[:, None]
    given = x + place.to(tl.int64)[:, None] * WIDTH
    row = _rows_of(count, OUT, GATED)
    there = row < count
    rows = weight + row.to(tl.int64)[:, None] * WIDTH
    piece = _piece(rows, there, 0, WIDTH, AT_ONCE)
    wait(OVERLAPPED)
    some = tl.load(given + first[None, :], mask=live & (first < WIDTH)[None, :], other=0.0)
    found = tl.dot(some, tl.trans(piece), input_precision="ieee")
    for start in range(AT_ONCE, WIDTH, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        some = tl.load(given + at[None, :], mask=live & (at < WIDTH)[None, :], other=0.0)
        piece = _piece(rows, there, start, WIDTH, AT_ONCE)
        found = tl.dot(some, tl.trans(piece), found, input_precision="ieee")
    if BIASED:
        found += tl.load(bias + row, mask=there, other=0.0).to(tl.float32)[None, :]
    to, inside, each = row, there, count
    if GATED:
        gate, up = tl.split(tl.reshape(found, (ROWS, OUT // 2, 2)))
        found = _silu_times(gate, up, number)
        to = tl.program_id(0) * (OUT // 2) + tl.arange(0, OUT // 2)
        inside = to < count // 2
        each = count // 2
    target = out + place.to(tl.int64)[:, None] * each + to[None, :]
    kept = live & inside[None, :]
    if ADDED:
        found += tl.load(target, mask=kept, other=0.0).to(tl.float32)
    tl.store(target, found.to(number), mask=kept)
