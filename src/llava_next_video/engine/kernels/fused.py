"""Small operations between matrix products, one launch each."""

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llava_next_video.engine.kernels import tl, triton

_AT_ONCE = 1024


def rms_norm(
    x: Float[Tensor, "rows width"],
    weight: Float[Tensor, " width"],
    epsilon: float,
    residual: Float[Tensor, "rows width"] | None = None,
) -> Float[Tensor, "rows width"]:
    """An RMS norm of `x`, or of `x + residual`; the sum is then left in `residual`.

    Raises:
        ValueError: rows do not lie one behind the other.
    """
    _refuse_gaps(x, residual)
    out = torch.empty_like(x)
    if len(x):
        block = triton.next_power_of_2(x.shape[1])
        _rms_norm_kernel[(len(x),)](
            x,
            x if residual is None else residual,
            weight,
            out,
            epsilon,
            ADDED=residual is not None,
            WIDTH=x.shape[1],
            PADDED=block,
            num_warps=min(max(block // 512, 1), 16),
        )
    return out


@triton.jit
@no_type_check
def _rms_norm_kernel(
    x, residual, weight, out, epsilon, ADDED: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr
):
    """One row, in float32; a sum is rounded as it is stored before it is normed."""
    feature = tl.arange(0, PADDED)
    inside = feature < WIDTH
    at = tl.program_id(0).to(tl.int64) * WIDTH + feature
    row = tl.load(x + at, mask=inside, other=0.0)
    if ADDED:
        row = (row.to(tl.float32) + tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)).to(
            row.dtype
        )
        tl.store(residual + at, row, mask=inside)
    row = row.to(tl.float32)
    unit = tl.rsqrt(tl.sum(row * row, 0) / WIDTH + epsilon)
    scale = tl.load(weight + feature, mask=inside, other=0.0).to(tl.float32)
    normed = (row * unit).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (normed * scale).to(out.dtype.element_ty), mask=inside)


def turn(
    heads: Float[Tensor, "tokens heads width"],
    positions: Int[Tensor, " tokens"],
    turns: Float[Tensor, "context width"],
) -> None:
    """Rope for interleaved heads, in place.

    Args:
        heads: Queries and keys side by side; those of one token lie in a row.
        positions: Where each token stands in its request.
        turns: Cosine and sine of each pair of features at each position, float32.
    """
    tokens, count, width = heads.shape
    if tokens:
        block = 8192 // triton.next_power_of_2(width)
        _turn_kernel[(tokens, triton.cdiv(count, block))](
            heads,
            positions,
            turns,
            heads.stride(0),
            positions.stride(0),
            HEADS=count,
            BLOCK=min(block, triton.next_power_of_2(count)),
            WIDTH=width,
            HALF=triton.next_power_of_2(width) // 2,
        )


@triton.jit
@no_type_check
def _turn_kernel(
    heads,
    positions,
    turns,
    stride,
    position_stride,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
):
    """Some heads of one token."""
    token = tl.program_id(0)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    feature = tl.arange(0, 2 * HALF)
    position = tl.load(positions + token * position_stride).to(tl.int64)
    angle = tl.load(turns + position * WIDTH + feature, mask=feature < WIDTH, other=0.0)
    cosine, sine = tl.split(tl.reshape(angle, (1, HALF, 2)))
    inside = (head < HEADS)[:, None] & (feature < WIDTH)[None, :]
    at = heads + token.to(tl.int64) * stride + head[:, None] * WIDTH + feature[None, :]
    x = tl.load(at, mask=inside, other=0.0)
    even, odd = tl.split(tl.reshape(x.to(tl.float32), (BLOCK, HALF, 2)))
    turned = tl.join(even * cosine - odd * sine, even * sine + odd * cosine)
    tl.store(at, tl.reshape(turned, (BLOCK, 2 * HALF)).to(x.dtype), mask=inside)


def silu_and_multiply(gate_up: Float[Tensor, "rows both"]) -> Float[Tensor, "rows half"]:
    """`silu(gate) * up`, where the second half of each row is `up`.

    Raises:
        ValueError: rows do not lie one behind the other.
    """
    _refuse_gaps(gate_up)
    rows, half = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, half)
    if rows:
        _silu_kernel[(rows, triton.cdiv(half, _AT_ONCE))](gate_up, out, half, BLOCK=_AT_ONCE)
    return out


@triton.jit
@no_type_check
def _silu_kernel(gate_up, out, half, BLOCK: tl.constexpr):
    """Some features of one row, in float32."""
    row = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = feature < half
    gate = tl.load(gate_up + row * 2 * half + feature, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * half + half + feature, mask=inside, other=0.0)
    activated = (gate / (1.0 + tl.exp(-gate))).to(up.dtype).to(tl.float32)
    tl.store(out + row * half + feature, (activated * up.to(tl.float32)).to(up.dtype), mask=inside)


def _refuse_gaps(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(
                f"rows of {tuple(tensor.shape)} have strides {tensor.stride()}; give a contiguous one"
            )
