"""Small operations between matrix products, one launch each."""

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton
from llava_next_video.engine.kernels.overlap import let_next_begin, overlapped, wait

_AT_ONCE = 1024


def rms_norm(
    x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
) -> Float[Tensor, "rows width"]:
    """An RMS norm of each row.

    Raises:
        ValueError: rows do not lie one behind the other.
    """
    _refuse_gaps(x)
    out = torch.empty_like(x)
    if len(x):
        block = triton.next_power_of_2(x.shape[1])
        _rms_norm_kernel[(len(x),)](
            x,
            weight,
            out,
            epsilon,
            WIDTH=x.shape[1],
            PADDED=block,
            **overlapped(x.device),
            num_warps=min(max(block // 512, 1), 16),
        )
    return out


@triton.jit
@no_type_check
def _rms_norm_kernel(
    x, weight, out, epsilon, WIDTH: tl.constexpr, PADDED: tl.constexpr, OVERLAPPED: tl.constexpr
):
    """One row, in float32."""
    let_next_begin(OVERLAPPED)
    feature = tl.arange(0, PADDED)
    inside = feature < WIDTH
    scale = tl.load(weight + feature, mask=inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    wait(OVERLAPPED)
    at = tl.program_id(0).to(tl.int64) * WIDTH + feature
    row = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    unit = tl.rsqrt(tl.sum(row * row, 0) / WIDTH + epsilon)
    normed = (row * unit).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (normed * scale).to(out.dtype.element_ty), mask=inside)


def turns_of(
    positions: Int32[Tensor, " rows"],
    scalings: Int32[Tensor, " rows"],
    frequencies: Float[Tensor, "scalings half"],
    strengths: Float[Tensor, " scalings"],
) -> Float[Tensor, "rows width"]:
    """Cosine and sine of each pair of features of a head, for each row.

    Args:
        positions, scalings: Columns of the table of the step: where each row stands, and which frequencies
            are its.
        frequencies, strengths: Of all scalings, as `Rope` keeps them.
    """
    half = frequencies.shape[1]
    out = torch.empty(len(positions), 2 * half, dtype=torch.float32, device=positions.device)
    _turns_kernel[(len(positions),)](
        positions,
        scalings,
        frequencies,
        strengths,
        out,
        positions.stride(0),
        HALF=half,
        PADDED=triton.next_power_of_2(2 * half),
        **overlapped(positions.device),
        num_warps=2,
    )
    return out


@triton.jit
@no_type_check
def _turns_kernel(
    positions,
    scalings,
    frequencies,
    strengths,
    out,
    stride,
    HALF: tl.constexpr,
    PADDED: tl.constexpr,
    OVERLAPPED: tl.constexpr,
):
    """One row."""
    let_next_begin(OVERLAPPED)
    row, feature = tl.program_id(0), tl.arange(0, PADDED)
    inside = feature < 2 * HALF
    scaling = tl.load(scalings + row * stride)
    position = tl.load(positions + row * stride).to(tl.float32)
    wait(OVERLAPPED)
    angle = position * tl.load(frequencies + scaling * HALF + feature // 2, mask=inside, other=0.0)
    turn = tl.where(feature % 2 == 0, tl.cos(angle), tl.sin(angle)) * tl.load(strengths + scaling)
    tl.store(out + row * 2 * HALF + feature, turn, mask=inside)


def silu_and_multiply(gate_up: Float[Tensor, "rows both"]) -> Float[Tensor, "rows half"]:
    """`silu(gate) * up`, where the second half of each row is `up`.

    Raises:
        ValueError: rows do not lie one behind the other.
    """
    _refuse_gaps(gate_up)
    rows, half = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, half)
    if rows:
        _silu_kernel[(rows, triton.cdiv(half, _AT_ONCE))](
            gate_up, out, half, BLOCK=_AT_ONCE, **overlapped(gate_up.device)
        )
    return out


@triton.jit
@no_type_check
def _silu_kernel(gate_up, out, half, BLOCK: tl.constexpr, OVERLAPPED: tl.constexpr):
    """Some features of one row, in float32."""
    let_next_begin(OVERLAPPED)
    wait(OVERLAPPED)
    row = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < half
    gate = tl.load(gate_up + row * 2 * half + feature, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * half + half + feature, mask=inside, other=0.0)
    activated = (gate / (1.0 + tl.exp(-gate))).to(up.dtype).to(tl.float32)
    tl.store(out + row * half + feature, (activated * up.to(tl.float32)).to(up.dtype), mask=inside)


def _refuse_gaps(tensor: Tensor) -> None:
    if not tensor.is_contiguous():
        raise ValueError(
            f"rows of {tuple(tensor.shape)} have strides {tensor.stride()}; give a contiguous one"
        )
