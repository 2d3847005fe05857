"""What a matrix product with fixed weights can do, whatever its weights are stored in."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Product(Protocol):
    """A matrix product with fixed weights.

    Attributes:
        multiplications: Products of two numbers for each row.
        weight_bytes: What it reads of its weights.
    """

    multiplications: int
    weight_bytes: int

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row. What stands in `x` may be lost."""

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """The product for each row after an RMS norm; `x` stays."""

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added, in place. What stands in `x` may be lost."""
