"""Matrix products with fixed weights, in floats or in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from llava_next_video.engine.between import normed, root_mean_square
from llava_next_video.engine.cpu import multiplies_bfloat16
from llava_next_video.engine.linear_cuda import NARROW, refuse_narrow
from llava_next_video.engine.linear_wide import WideLinear
from llava_next_video.engine.native import Kernels, NativeLinear, Panels
from llava_next_video.engine.product import Product
from llava_next_video.engine.settings import DType, FewRows, Quantize
from llava_next_video.errors import ConfigError

_FEW_ROWS = 8
_LEAST = 1e-10
_MIDDLE = 128
MOSTLY_POSITIVE = 64
_BARE: tuple[str, list[float], str] = ("none", [], "")  # nothing after the product
_FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class FloatLinear:
    """`x @ weight.T + bias`, with the weights turned once: 2 to 32 rows then take half the time."""

    def __init__(self, weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None) -> None:
        self.turned = weight.t().contiguous()
        self.multiplications, self.weight_bytes = self.turned.numel(), self.turned.nbytes
        self.bias = bias

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row."""
        return torch.mm(x, self.turned) if self.bias is None else torch.addmm(self.bias, x, self.turned)

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm."""
        return self(normed(x, weight, epsilon))

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added; without a bias the sum is rounded once."""
        return sum.addmm_(x, self.turned) if self.bias is None else sum.add_(self(x))


class PackedLinear:
    """The same in bfloat16, with the weights in the order that oneDNN likes best."""

    def __init__(self, weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None) -> None:
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self.multiplications, self.weight_bytes = weight.numel(), weight.nbytes
        self.bias = bias

    @staticmethod
    def suits(weight: Tensor) -> bool:
        """Whether oneDNN multiplies such weights here."""
        return (
            weight.dtype is torch.bfloat16
            and weight.device.type == "cpu"
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )

    def __call__(self, x: Float[Tensor, "rows width"], after: str = "none") -> Float[Tensor, "rows out"]:
        """The product for each row, after which oneDNN may take an activation along (`swish`)."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, after, [], "")
        return found

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


class Int8Linear:
    """The same with 8-bit weights (a scale per row) and 8-bit activations (a scale per token).

    Products are exact integers; only the rounding of weights and activations loses. Two layouts of the
    weights are kept, as the fastest routine for a few rows is not the fastest for many.

    Activations that lie mostly above zero (behind a GELU) lose a third less with `zero_point` 64: 191 steps
    above it and 64 below, instead of 127 on both sides.
    """

    def __init__(
        self,
        weight: Float[Tensor, "out width"],
        bias: Float[Tensor, " out"] | None,
        zero_point: int = _MIDDLE,
    ) -> None:
        rows, scale = quantized_rows(weight.float())
        self.weight = rows.t()
        self.multiplications = self.weight_bytes = rows.numel()
        # oneDNN takes unsigned activations with a zero point; signed ones fall into its reference routine.
        self.packed = torch.ops.onednn.qlinear_prepack(rows, None)
        self.zero_point = zero_point
        self.scale = scale.squeeze(1)
        self.zeros = torch.zeros(len(rows), dtype=torch.int32)
        self.bias = None if bias is None else bias.float()

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row."""
        out, unit = self._products(x)
        return out.mul_(unit) if self.bias is None else torch.addcmul(self.bias, out, unit, out=out)

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm, which only changes the scale of the token."""
        out, unit = self._products(x * weight)
        unit.div_(root_mean_square(x, epsilon))
        return out.mul_(unit) if self.bias is None else torch.addcmul(self.bias, out, unit, out=out)

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added."""
        out, unit = self._products(x)
        sum.addcmul_(out, unit)
        return sum if self.bias is None else sum.add_(self.bias)

    def _products(self, x: Tensor) -> tuple[Float[Tensor, "rows out"], Float[Tensor, "rows 1"]]:
        """Products of rounded rows, and what a step of the rounding of each row was worth."""
        if x.shape[0] <= _FEW_ROWS:  # as few operations as possible: each costs as much as the product
            unit = x.abs().amax(dim=1, keepdim=True).clamp_min_(_LEAST).mul_(1 / 127)
            return torch._int_mm(x.div_(unit).round_().to(torch.int8), self.weight) * self.scale, unit
        # As little memory as possible: the absolute values of many rows are not worth storing.
        above, below = x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True)
        if self.zero_point == _MIDDLE:
            unit = torch.maximum(above, below.neg_()).clamp_min_(_LEAST).mul_(1 / 127)
            rounded = x.mul_(unit.reciprocal()).round_()
        else:
            unit = torch.maximum(above.div_(255 - self.zero_point), below.div_(-self.zero_point))
            unit.clamp_min_(_LEAST)
            rounded = x.mul_(unit.reciprocal()).round_().sub_(_MIDDLE - self.zero_point)
        unsigned = rounded.to(torch.int8).view(torch.uint8).bitwise_xor_(_MIDDLE)  # plus 128
        out = torch.ops.onednn.qlinear_pointwise(
            unsigned,
            1.0,
            self.zero_point,
            self.packed,
            self.scale,
            self.zeros,
            None,
            1.0,
            0,
            torch.float32,
            *_BARE,
        )
        return out, unit


def quantized_rows(
    weight: Float[Tensor, "out width"],
) -> tuple[Int8[Tensor, "out width"], Float[Tensor, "out 1"]]:
    """Rows as integers from -127 to 127 and the scale of each row.

    >>> rows, scale = quantized_rows(torch.tensor([[1.0, -2.0, 0.5]]))
    >>> rows.tolist()
    [[64, -127, 32]]
    """
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(_LEAST) / 127
    return (weight / scale).round().to(torch.int8), scale


def linear(
    weights: Sequence[Float[Tensor, "_ width"]],
    biases: Sequence[Tensor | None],
    quantize: Quantize,
    zero_point: int = _MIDDLE,
    kernels: Kernels | None = None,
    out_dtype: torch.dtype = torch.float32,
    few_rows: FewRows = "torch",
) -> Product:
    """One product for several weights with a common input; missing biases count as zero.

    `out_dtype` is what products come in where `kernels` compute them; `few_rows` says who multiplies a few
    rows on a GPU.
    """
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    bias = None
    if any(one is not None for one in biases):
        parts = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
        bias = parts[0] if len(parts) == 1 else torch.cat(parts)
    if kernels is not None:
        bias = None if bias is None else bias.float()
        return NativeLinear(kernels, _panels(weight, bias, quantize, zero_point), out_dtype)
    if quantize == "none":
        if weight.is_cuda:
            return WideLinear(weight, bias, few_rows)
        return PackedLinear(weight, bias) if PackedLinear.suits(weight) else FloatLinear(weight, bias)
    if weight.device.type == "cpu":
        return Int8Linear(weight, bias, zero_point)
    return NARROW[quantize](weight, bias)


def _panels(weight: Tensor, bias: Tensor | None, quantize: Quantize, zero_point: int) -> Panels:
    if quantize == "none":
        return Panels(weight, None, bias)
    rows, scale = quantized_rows(weight.float())
    return Panels(rows, scale.squeeze(1), bias, zero_point)


def chosen_dtype(wanted: DType, device: torch.device, quantize: Quantize) -> torch.dtype:
    """The precision to compute in: the wanted one, or the one that such a processor multiplies faster.

    It goes by what the processor has instructions for and not by a stopwatch: processes that share an output
    must choose alike however busy the machine is.

    With 8-bit products on a CPU what lies between them stays in float32: it is little, and float16 can
    overflow.

    Raises:
        ConfigError: The device cannot multiply in that precision.
    """
    if device.type != "cpu":
        refuse_narrow(quantize, wanted, device)
        return torch.bfloat16 if wanted == "auto" else _FLOATS[wanted]
    if quantize in ("int4", "fp8"):
        raise ConfigError(f'quantize {quantize!r} needs a GPU; on a CPU there is "int8"')
    if quantize == "int8":
        if wanted not in ("auto", "float32"):
            raise ConfigError(f'quantize "int8" computes in float32 between its products; dtype is {wanted}')
        return torch.float32
    if wanted != "auto":
        return _FLOATS[wanted]
    return torch.bfloat16 if multiplies_bfloat16() else torch.float32
