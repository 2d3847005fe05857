"""8-bit products whose surroundings take one pass each.

Before them norm or activation, and rounding; behind them scales, bias and sum.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llava_next_video.engine.native.calls import Kernels, Kind, Norm, Raw, Rows8

_FEW_ROWS = 8


class Int8Kernels:
    """8-bit weights (a scale per row) and 8-bit activations (a scale per token), between kernels.

    A product for many rows is torch's own. Its results are left as they come, with what they are worth beside
    them, and whoever needs them next takes both in one pass.
    """

    def __init__(
        self,
        kernels: Kernels,
        rows: Tensor,
        scale: Float[Tensor, " out"],
        bias: Float[Tensor, " out"] | None,
        zero_point: int,
        out_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.kernels = kernels
        self.multiplications = self.weight_bytes = rows.numel()
        self.packed = torch.ops.onednn.qlinear_prepack(rows, None)
        self.zeros = torch.zeros(len(rows), dtype=torch.int32)
        self.zero_point = zero_point
        self.weights = Rows8(rows, scale, bias)
        self.out_dtype = out_dtype

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row."""
        return self._settled(self.raw(Raw(x.float().contiguous())))

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm."""
        return self._settled(self.raw(Raw(x), Kind.RMS_NORM, Norm(weight, epsilon)))

    def after_layer_norm(
        self, x: Float[Tensor, "rows width"], norm: nn.LayerNorm
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after a layer norm."""
        return self._settled(self.raw(Raw(x), Kind.LAYER_NORM, Norm.of(norm)))

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added."""
        return self.onto_raw(Raw(x.float().contiguous()), Kind.PLAIN, sum)

    def onto_raw(self, raw: Raw, kind: Kind, sum: Float[Tensor, "rows out"]) -> Float[Tensor, "rows out"]:
        """The same for what `raw` stands for, after an activation."""
        if raw.numbers.shape[0] <= _FEW_ROWS:
            return self.kernels.few(raw, kind, self.zero_point, None, self.weights, sum, add=True)
        return self.kernels.settle(self.raw(raw, kind), sum, add=True)

    def raw(self, raw: Raw, kind: Kind = Kind.PLAIN, norm: Norm | None = None) -> Raw:
        """The product as it comes, for whoever takes its scales and bias along."""
        rows = raw.numbers.shape[0]
        if rows <= _FEW_ROWS:
            out = torch.empty(rows, self.weights.count)
            return Raw(self.kernels.few(raw, kind, self.zero_point, norm, self.weights, out))
        x, unit = self.kernels.quantise(raw, kind, self.zero_point, norm)
        products = torch.ops.onednn.qlinear_pointwise(
            *(x, 1.0, self.zero_point, self.packed, self.weights.scale, self.zeros, None, 1.0, 0),
            *(torch.float32, "none", [], ""),
        )
        return Raw(products, unit, self.weights.bias)

    def _settled(self, raw: Raw) -> Tensor:
        if raw.unit is None and self.out_dtype is torch.float32:
            return raw.numbers
        out = torch.empty(raw.numbers.shape, dtype=self.out_dtype)
        return self.kernels.settle(raw, out)
