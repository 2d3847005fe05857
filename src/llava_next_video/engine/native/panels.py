"""Weights as the kernels read them, and what stands before a product."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from jaxtyping import BFloat16, Float, Int8, Int32
from torch import Tensor, nn

from llava_next_video.engine.native.structs import ProductStruct, WeightsStruct

_LANES, _WIDE, _GROUP_BYTES = 16, 64, 4


class Kind(IntEnum):
    """What happens to numbers before a product; the order is that of `rows.hpp`."""

    PLAIN = 0
    LAYER_NORM = 1
    RMS_NORM = 2
    SILU = 3
    GELU_TANH = 4
    GATED_SILU = 5


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm, or an RMS norm if there is no offset."""

    weight: Float[Tensor, " width"]
    epsilon: float
    offset: Float[Tensor, " width"] | None = None

    @property
    def kind(self) -> Kind:
        """What it does."""
        return Kind.RMS_NORM if self.offset is None else Kind.LAYER_NORM

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> Norm:
        """That of a module."""
        return cls(norm.weight.float(), norm.eps, norm.bias.float())


class Panels:
    """A matrix in panels of 64 columns: 8 bits with a scale for each column, or bfloat16.

    Args:
        rows: The weights of each column in a row, as modules have them.
        scale: What a step of each is worth; None for bfloat16.
        bias: Added to each; None: nothing.
        zero_point: Where zero of the unsigned 8-bit numbers lies that 8-bit weights are multiplied with; 0
            for bfloat16, by which kernels tell them apart.

    Raises:
        ValueError: Weights, scale and zero point do not belong to one kind.
    """

    def __init__(
        self,
        rows: Int8[Tensor, "out width"] | BFloat16[Tensor, "out width"],
        scale: Float[Tensor, " out"] | None,
        bias: Float[Tensor, " out"] | None,
        zero_point: int = 0,
    ) -> None:
        narrow = rows.dtype is torch.int8
        if narrow != (scale is not None) or narrow != (zero_point > 0):
            raise ValueError(
                f"8-bit weights have a scale and a zero point above 0, others neither; these are "
                f"{rows.dtype} with {'no' if scale is None else 'a'} scale and zero point {zero_point}"
            )
        self.out, self.width = rows.shape
        self.groups = in_panels(rows)
        start = None if scale is None else rows.sum(dim=1, dtype=torch.int32).mul_(-zero_point)
        beside = [
            None if one is None else F.pad(one, (0, -self.out % _LANES)) for one in (scale, bias, start)
        ]
        self._beside = beside  # the struct names only where they lie
        deep = -(-self.width * rows.element_size() // _GROUP_BYTES)
        self.struct = WeightsStruct(
            self.groups.data_ptr(),
            *(address(one) for one in beside),
            *(self.out, self.width, deep, zero_point),
        )

    def product(self, kind: Kind = Kind.PLAIN, norm: Norm | None = None) -> ProductStruct:
        """It behind a norm or an activation; the norm must live as long as what comes back."""
        if norm is None:
            return ProductStruct(self.struct, None, None, 0.0, kind)
        return ProductStruct(self.struct, address(norm.weight), address(norm.offset), norm.epsilon, norm.kind)


def in_panels(rows: Int8[Tensor, "out width"] | BFloat16[Tensor, "out width"]) -> Int32[Tensor, " groups"]:
    """Columns side by side, 64 at a time (the last few fill up 16), in groups of four bytes of each.

    >>> rows = torch.arange(16 * 8, dtype=torch.int8).view(16, 8)
    >>> in_panels(rows).view(torch.int8)[:12].tolist()
    [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    """
    out, width = rows.shape
    each = _GROUP_BYTES // rows.element_size()
    groups = F.pad(rows, (0, -width % each, 0, -out % _LANES)).contiguous().view(torch.int32)
    whole = len(groups) // _WIDE * _WIDE
    panels = groups[:whole].view(-1, _WIDE, groups.shape[1]).transpose(1, 2)
    return torch.cat([panels.flatten(), groups[whole:].t().flatten()])


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor lies."""
    return None if tensor is None else tensor.data_ptr()
