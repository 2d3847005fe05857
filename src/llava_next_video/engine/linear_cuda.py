"""Matrix products on a GPU with weights of 8 or 4 bits.

`fp8` rounds activations too and multiplies in 8 bits, which the tensor cores do twice as fast. `int8` and
`int4` only read fewer bytes: right for small batches, where a step waits for its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from llava_next_video.engine.between import normed
from llava_next_video.engine.product import Product
from llava_next_video.engine.settings import DType, Quantize
from llava_next_video.errors import ConfigError

_LARGEST_FP8 = 448.0
_LEAST = 1e-10
_GROUP = 128
_INNER_TILES = 8
_FEW_ROWS = 64  # beyond, making floats of the weights first and multiplying those is faster


class NarrowLinear:
    """A product with weights in few bits, norms before it and sums behind it.

    Args:
        products: The product of each row, without bias.
        bias: Added to it.
        multiplications: Products of two numbers for each row.
        weight_bytes: What it reads of its weights.
    """

    def __init__(
        self,
        products: Callable[[Tensor], Tensor],
        bias: Float[Tensor, " out"] | None,
        *,
        multiplications: int,
        weight_bytes: int,
    ) -> None:
        self.products = products
        self.bias = bias
        self.multiplications, self.weight_bytes = multiplications, weight_bytes

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row."""
        out = self.products(x)
        return out if self.bias is None else out.add_(self.bias)

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm."""
        return self(normed(x, weight, epsilon))

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added."""
        return sum.add_(self(x))


def fp8_linear(weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None) -> NarrowLinear:
    """Weights and activations in float8 (e4m3), with a scale for each weight row and each token."""
    rows, scale = fp8_rows(weight)
    turned, turned_scale = rows.t(), scale.t().contiguous()

    def products(x: Tensor) -> Tensor:
        narrow, unit = fp8_rows(x)
        return torch._scaled_mm(
            narrow, turned, scale_a=unit, scale_b=turned_scale, out_dtype=x.dtype, use_fast_accum=True
        )

    return NarrowLinear(products, bias, multiplications=rows.numel(), weight_bytes=rows.nbytes)


def int8_linear(weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None) -> NarrowLinear:
    """Weights in 8 bits with a scale for each row; activations as they are."""
    scale = weight.float().abs().amax(dim=1).clamp_min_(_LEAST).div_(127)
    rows = (weight.float() / scale[:, None]).round_().to(torch.int8)
    scale = scale.to(weight.dtype)

    def products(x: Tensor) -> Tensor:
        if len(x) <= _FEW_ROWS:
            return torch._weight_int8pack_mm(x, rows, scale)
        return F.linear(x, rows.to(x.dtype)).mul_(scale)

    return NarrowLinear(products, bias, multiplications=rows.numel(), weight_bytes=rows.nbytes)


def int4_linear(weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None) -> NarrowLinear:
    """Weights in 4 bits with a scale and a zero point for each 128 of a row, in torch's tiled layout.

    Raises:
        ConfigError: The weights do not divide into such groups.
    """
    if weight.shape[1] % _GROUP or weight.shape[0] % 8:
        raise ConfigError(
            f'quantize "int4" groups {_GROUP} weights of a row and 8 rows; these are '
            f"{weight.shape[0]} rows of {weight.shape[1]}: take int8"
        )
    levels, scale_and_zero = int4_groups(weight, _GROUP)
    pairs = (levels[:, ::2] << 4 | levels[:, 1::2]).to(torch.uint8)
    packed = torch._convert_weight_to_int4pack(pairs, _INNER_TILES)

    def products(x: Tensor) -> Tensor:
        return torch._weight_int4pack_mm(x, packed, _GROUP, scale_and_zero)

    return NarrowLinear(products, bias, multiplications=weight.numel(), weight_bytes=pairs.nbytes)


NARROW: Mapping[Quantize, Callable[[Tensor, Tensor | None], Product]] = {
    "fp8": fp8_linear,
    "int8": int8_linear,
    "int4": int4_linear,
}
"""The product for each choice of `quantize` on a GPU."""


def fp8_rows(x: Float[Tensor, "rows width"]) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Rows in float8, scaled so that the largest value of each is the largest that float8 has.

    >>> rows, scale = fp8_rows(torch.tensor([[1.0, -448.0], [0.5, 0.25]]))
    >>> (rows.float() * scale).tolist()
    [[1.0, -448.0], [0.5, 0.25]]
    """
    scale = x.abs().amax(dim=1, keepdim=True).float().clamp_min_(_LEAST).div_(_LARGEST_FP8)
    return (x.float() / scale).clamp_(-_LARGEST_FP8, _LARGEST_FP8).to(torch.float8_e4m3fn), scale


def int4_groups(
    weight: Float[Tensor, "out width"], group: int
) -> tuple[Int[Tensor, "out width"], Float[Tensor, "groups out 2"]]:
    """Weights as levels from 0 to 15, and for each group its step and what level 8 stands for.

    >>> levels, scale_and_zero = int4_groups(torch.tensor([[0.0, 1.5, 3.0, 7.5]]), 4)
    >>> levels.tolist()
    [[0, 3, 6, 15]]
    >>> scale_and_zero.tolist()
    [[[0.5, 4.0]]]
    """
    groups = weight.float().view(len(weight), -1, group)
    low, high = groups.amin(dim=2, keepdim=True), groups.amax(dim=2, keepdim=True)
    step = ((high - low) / 15).clamp_min_(_LEAST)
    levels = ((groups - low) / step).round_().clamp_(0, 15).to(torch.int32).flatten(1)
    scale_and_zero = torch.cat([step, low + 8 * step], dim=2).transpose(0, 1).contiguous()
    return levels, scale_and_zero.to(weight.dtype)


def refuse_narrow(quantize: Quantize, wanted: DType, device: torch.device) -> None:
    """Raise unless a GPU can multiply so.

    Raises:
        ConfigError: It cannot, or the precision between the products is one that its products do not give.
    """
    if quantize == "none":
        return
    if wanted not in ("auto", "bfloat16"):
        raise ConfigError(
            f"quantize {quantize!r} computes in bfloat16 between its products; dtype is {wanted}"
        )
    needed = (8, 9) if quantize == "fp8" else (8, 0)
    have = torch.cuda.get_device_capability(device)
    if have < needed:
        raise ConfigError(
            f"quantize {quantize!r} needs a GPU of compute capability {needed[0]}.{needed[1]}, this one has "
            f"{have[0]}.{have[1]}; leave quantize out"
        )
