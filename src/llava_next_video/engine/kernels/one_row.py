"""The product of one row with a matrix: what a step for one request waits for.

Nothing but the speed of the memory should count: weights are read once, in long pieces, by programs that need
nothing of each other; the norm before a product is computed again by each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

from jaxtyping import Float
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton


@dataclass(frozen=True, slots=True)
class Tile:
    """How many rows of the matrix a program takes, how much of them at a time, and its warps."""

    rows: int
    width: int
    warps: int


TILES = (Tile(4, 1024, 4), Tile(8, 512, 4), Tile(16, 256, 4), Tile(8, 1024, 8))
"""Those worth trying."""


def one_row(
    x: Float[Tensor, "1 width"],
    weight: Float[Tensor, "out width"],
    tile: Tile,
    *,
    norm: Float[Tensor, " width"] | None = None,
    epsilon: float = 0.0,
    onto: Float[Tensor, "1 out"] | None = None,
) -> Float[Tensor, "1 out"]:
    """The product of a row, after an RMS norm with the weights `norm` if given, added to `onto` in place.

    Raises:
        ValueError: the row or the matrix has gaps.
    """
    if not (x.is_contiguous() and weight.is_contiguous() and (onto is None or onto.is_contiguous())):
        raise ValueError("a row and a matrix without gaps are needed; make them contiguous")
    count, width = weight.shape
    out = x.new_empty(1, count) if onto is None else onto
    _one_row_kernel[(triton.cdiv(count, tile.rows),)](
        x,
        weight,
        x if norm is None else norm,
        out,
        epsilon,
        count,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        NORMED=norm is not None,
        ADDED=onto is not None,
        ROWS=tile.rows,
        AT_ONCE=min(tile.width, triton.next_power_of_2(width)),
        num_warps=tile.warps,
    )
    return out


@triton.jit
@no_type_check
def _one_row_kernel(
    x,
    weight,
    norm,
    out,
    epsilon,
    count,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    NORMED: tl.constexpr,
    ADDED: tl.constexpr,
    ROWS: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Some rows of the matrix."""
    unit = 1.0
    if NORMED:
        feature = tl.arange(0, PADDED)
        whole = tl.load(x + feature, mask=feature < WIDTH, other=0.0).to(tl.float32)
        unit = tl.rsqrt(tl.sum(whole * whole, 0) / WIDTH + epsilon)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    rows = weight + row.to(tl.int64)[:, None] * WIDTH
    total = tl.zeros([ROWS, AT_ONCE], tl.float32)
    for start in range(0, WIDTH, AT_ONCE):
        at = start + tl.arange(0, AT_ONCE)
        inside = at < WIDTH
        some = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if NORMED:
            scale = tl.load(norm + at, mask=inside, other=0.0).to(tl.float32)
            some = (some * unit).to(x.dtype.element_ty).to(tl.float32) * scale
            some = some.to(x.dtype.element_ty).to(tl.float32)
        numbers = tl.load(
            rows + at[None, :],
            mask=(row < count)[:, None] & inside[None, :],
            other=0.0,
            eviction_policy="evict_first",
        )
        total += numbers.to(tl.float32) * some[None, :]
    found = tl.sum(total, 1)
    if ADDED:
        found += tl.load(out + row, mask=row < count, other=0.0).to(tl.float32)
    tl.store(out + row, found.to(out.dtype.element_ty), mask=row < count)
