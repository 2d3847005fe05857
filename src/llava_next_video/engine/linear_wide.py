"""Matrix products on a GPU with weights as they are.

Torch's product is the best there is for many rows. For a few, which only wait for the weights to be read, a
kernel that also computes what stands before and behind the product can be faster; which, is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from llava_next_video.engine.between import gated, normed
from llava_next_video.engine.settings import FewRows

MOST_ROWS = 16
"""What one product of the tensor cores takes."""

_NARROW_BYTES = 2  # wider numbers are for exactness, not for speed
_SOME_ROWS = 8  # with which products of a few rows are measured
_CACHE_BYTES = 256 * 1024**2  # more than any GPU keeps close
_TRIES = 7
_NEAR = 0.98  # of torch's time, which ours must beat: in a step of 8 rows near ties were better as torch's
_EPSILON = 1e-5

Role = Literal["plain", "normed", "gated", "onto"]
"""What else is done with a product: a norm before it, a gate behind it, a sum."""


class WideLinear:
    """Weights as they are. A few rows go through kernels of our own where `few_rows` says so."""

    def __init__(
        self, weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None, few_rows: FewRows
    ) -> None:
        self.few_rows = few_rows
        self.weight = weight.contiguous()
        self.multiplications, self.weight_bytes = weight.numel(), weight.nbytes
        self.bias = bias

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row."""
        own = self._own(len(x), "plain")
        return F.linear(x, self.weight, self.bias) if own is None else own(x, bias=self.bias)

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm."""
        own = self._own(len(x), "normed")
        if own is None:
            return F.linear(normed(x, weight, epsilon), self.weight, self.bias)
        return own(x, bias=self.bias, norm=weight, epsilon=epsilon)

    def gated_after_norm(
        self,
        x: Float[Tensor, "rows width"],
        weight: Float[Tensor, " width"],
        epsilon: float,
        activation: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "rows half"]:
        """The activation of the first half of the product after an RMS norm, times its second half."""
        own = self._own(len(x), "gated") if activation is F.silu else None
        if own is None:
            return gated(F.linear(normed(x, weight, epsilon), self.weight, self.bias), activation)
        return own(x, bias=self.bias, norm=weight, epsilon=epsilon, gated=True)

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added."""
        own = self._own(len(x), "onto")
        if own is not None:
            return own(x, bias=self.bias, onto=sum)
        return sum.addmm_(x, self.weight.t()) if self.bias is None else sum.add_(self(x))

    def _own(self, rows: int, role: Role) -> Callable[..., Tensor] | None:
        """Our kernel for so many rows; None: torch's product."""
        if self.few_rows == "torch" or not 0 < rows <= MOST_ROWS:
            return None
        if self.few_rows == "own":
            cut = _cuts(alone=rows == 1)[0]
        else:
            cut = fastest(self.weight, role, alone=rows == 1)
        return None if cut is None else partial(_kernels().few_rows, weight=self.weight, cut=cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a matrix multiplies a few rows.

    Attributes:
        cut: Of our own kernel; None: torch's product.
        times_ms: What each took that was tried, torch's under None.
    """

    cut: Any
    times_ms: Mapping[Any, float]


CHOICES: dict[tuple[torch.Size, torch.dtype, torch.device, Role, bool], Choice] = {}
"""What measured fastest for each size of matrix in each role, for one row (True) and for a few."""


def fastest(weight: Float[Tensor, "out width"], role: Role, *, alone: bool) -> Any:
    """The cut with which this matrix measures fastest for one row or a few; None: torch is faster."""
    if weight.dtype.itemsize > _NARROW_BYTES:
        return None
    kind = (weight.shape, weight.dtype, weight.device, role, alone)
    if kind not in CHOICES:
        CHOICES[kind] = _measured(weight, role, alone=alone)
    return CHOICES[kind].cut


def _cuts(*, alone: bool) -> Sequence[Any]:
    return _kernels().ONE_ROW if alone else _kernels().FEW_ROWS


def _measured(weight: Tensor, role: Role, *, alone: bool) -> Choice:
    kernels, rows = _kernels(), 1 if alone else _SOME_ROWS
    copies = [weight, *(weight.clone() for _ in range(_CACHE_BYTES // weight.nbytes))]
    x, scale = weight.new_ones(rows, weight.shape[1]), weight.new_ones(weight.shape[1])
    sum = weight.new_zeros(rows, len(weight))
    theirs: Callable[[Tensor], Tensor] = {
        "plain": lambda one: F.linear(x, one),
        "normed": lambda one: F.linear(normed(x, scale, _EPSILON), one),
        "gated": lambda one: gated(F.linear(normed(x, scale, _EPSILON), one), F.silu),
        "onto": lambda one: sum.addmm_(x, one.t()),
    }[role]
    more: dict[Role, dict[str, Any]] = {
        "plain": {},
        "normed": {"norm": scale, "epsilon": _EPSILON},
        "gated": {"norm": scale, "epsilon": _EPSILON, "gated": True},
        "onto": {"onto": sum},
    }
    times_ms: dict[Any, float] = {None: _graph_ms([partial(theirs, one) for one in copies])}
    for cut in _cuts(alone=alone):
        with suppress(kernels.TooLarge):
            own = partial(kernels.few_rows, x, cut=cut, **more[role])
            times_ms[cut] = _graph_ms([partial(own, weight=one) for one in copies])
    each = {cut: ms / len(copies) for cut, ms in times_ms.items()}
    return Choice(cut=min(each, key=lambda cut: each[cut] * (_NEAR if cut is None else 1.0)), times_ms=each)


def _graph_ms(works: Sequence[Callable[[], object]]) -> float:
    """Milliseconds of some works as a graph takes for them, one behind the other as in a step.

    What they read should be more than the caches hold.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    works[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for work in works:
            work()
    times = []
    for _ in range(_TRIES):
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return min(times)


@cache
def _kernels() -> ModuleType:
    """The kernels for a few rows and their cuts; they need Triton, and a CPU never asks for them."""
    from llava_next_video.engine.kernels import few_rows

    return few_rows
