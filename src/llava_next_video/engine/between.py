"""What stands between the matrix products of a layer, in as few passes as the device allows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def normed(
    x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
) -> Float[Tensor, "rows width"]:
    """Rows after an RMS norm; `x` stays.

    >>> normed(torch.tensor([[3.0, -3.0]]), torch.tensor([1.0, 2.0]), 7.0).tolist()
    [[0.75, -1.5]]
    """
    if x.is_cuda:
        return _fused().rms_norm(x, weight, epsilon)
    return (x * root_mean_square(x, epsilon).reciprocal_()).to(x.dtype).mul_(weight)


def root_mean_square(x: Float[Tensor, "rows width"], epsilon: float) -> Float[Tensor, "rows 1"]:
    """What an RMS norm divides by, in float32; a vector norm is many times faster here than torch.rms_norm.

    >>> round(float(root_mean_square(torch.tensor([[3.0, -3.0]]), 7.0)), 3)
    4.0
    """
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[1]).add_(epsilon).sqrt_()


def gated(
    gate_up: Float[Tensor, "rows both"], activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "rows half"]:
    """The activation of the first half of each row, times the second half.

    >>> gated(torch.tensor([[-1.0, 2.0, 5.0, 5.0]]), torch.relu).tolist()
    [[0.0, 10.0]]
    """
    if gate_up.is_cuda and activation is F.silu:
        return _fused().silu_and_multiply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return activation(gate).mul_(up)


@cache
def _fused() -> ModuleType:
    """The kernels, which need Triton; a CPU never asks for them."""
    from llava_next_video.engine.kernels import fused

    return fused
