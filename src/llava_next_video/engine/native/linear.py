"""Products in 8 bits or bfloat16 with what surrounds them, in one pass each."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llava_next_video.engine.native.calls import Kernels
from llava_next_video.engine.native.panels import Kind, Norm, Panels
from llava_next_video.engine.native.structs import BehindStruct, ProductStruct
from llava_next_video.engine.product import Product


class NativeLinear:
    """A matrix that kernels multiply: what comes in and goes out is float32 or bfloat16.

    Norms and activations before a product, rounding, scales, bias and sums are part of it.
    """

    def __init__(self, kernels: Kernels, panels: Panels, out_dtype: torch.dtype = torch.float32) -> None:
        self.kernels, self.panels, self.out_dtype = kernels, panels, out_dtype
        self.multiplications = panels.out * panels.width
        self.weight_bytes = panels.groups.nbytes
        self._plain = panels.product()

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row."""
        return self._new(self._plain, x)

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm."""
        return self.after(x, Norm(weight, epsilon))

    def after_layer_norm(
        self, x: Float[Tensor, "rows width"], norm: nn.LayerNorm
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after a layer norm."""
        return self.after(x, Norm.of(norm))

    def after(self, x: Float[Tensor, "rows width"], norm: Norm) -> Float[Tensor, "rows out"]:
        """The product for each row after a norm."""
        return self._new(self.panels.product(norm=norm), x)

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added."""
        return self.kernels.multiply(self._plain, x, sum, add=True)

    def _new(self, product: ProductStruct, x: Tensor) -> Tensor:
        out = torch.empty(len(x), self.panels.out, dtype=self.out_dtype)
        return self.kernels.multiply(product, x, out)


class Behind:
    """What stands behind attention in a layer: its product and the MLP, a few rows at a time.

    Args:
        out: The product of what attention gives.
        norm: Before the MLP.
        up: Into the MLP.
        kind: Its activation.
        down: Out of it.
    """

    def __init__(
        self, out: NativeLinear, norm: Norm, up: NativeLinear, kind: Kind, down: NativeLinear
    ) -> None:
        self._parts = out, norm, up, down  # the struct names only where they lie
        self._kernels = out.kernels
        self.struct = BehindStruct(
            out.panels.product(), up.panels.product(norm=norm), down.panels.product(kind)
        )

    @classmethod
    def of(cls, out: Product, norm: Norm, up: Product, kind: Kind | None, down: Product) -> Behind | None:
        """The same, or None where kernels do not compute all of it."""
        if (
            isinstance(out, NativeLinear)
            and isinstance(up, NativeLinear)
            and isinstance(down, NativeLinear)
            and kind is not None
        ):
            return cls(out, norm, up, kind, down)
        return None

    def __call__(
        self, attended: Float[Tensor, "rows heads"], hidden: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """`hidden` after the layer, in place."""
        return self._kernels.behind(self.struct, attended, hidden)
