"""What one process holds of text layers that several share.

It cuts weights and knows who holds which piece; nothing here knows how processes meet, or what they compute
together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from llava_next_video.engine.product import Product


def _alone(sum: Tensor) -> None:
    """What adds up over one process: it is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of all heads and of all inner features, in every text layer.

    Attributes:
        rank: Which part, from 0 on; the process that has part 0 leads.
        count: How many parts there are.
        add_up: Adds a tensor up over the processes that have the parts, in place.

    Source: Megatron-LM (Shoeybi et al. 2019), section 3.
    """

    rank: int
    count: int
    add_up: Callable[[Tensor], None] = _alone

    def by_output(self, module: nn.Linear) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for this part of what comes out: whole heads, or inner features."""
        bias = module.bias
        return self._part(module.weight, 0), None if bias is None else self._part(bias, 0)

    def by_input(self, module: nn.Linear) -> tuple[Tensor, Tensor | None]:
        """The weight for this part of what comes in; the bias, which counts once, is in part 0."""
        bias = module.bias
        return self._part(module.weight, 1), None if bias is None or self.rank else bias.detach()

    def summed(self, part: Product) -> Product:
        """The whole product of which this process has only a part of what comes in."""
        return part if self.count == 1 else Summed(part, self.add_up)

    def _part(self, tensor: Tensor, dimension: int) -> Tensor:
        return tensor.detach().chunk(self.count, dim=dimension)[self.rank]


WHOLE = Share(rank=0, count=1)
"""Everything, in one process."""


class Summed:
    """A product whose input lies in parts in several processes: each computes its part, and all add up."""

    def __init__(self, part: Product, add_up: Callable[[Tensor], None]) -> None:
        self.part, self.add_up = part, add_up
        self.multiplications, self.weight_bytes = part.multiplications, part.weight_bytes

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        """The product for each row. What stands in `x` may be lost."""
        out = self.part(x)
        self.add_up(out)
        return out

    def after_norm(
        self, x: Float[Tensor, "rows width"], weight: Float[Tensor, " width"], epsilon: float
    ) -> Float[Tensor, "rows out"]:
        """Never: a norm needs the whole row, of which a process has a part.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a norm stands before a product that is summed over processes")

    def onto(
        self, x: Float[Tensor, "rows width"], sum: Float[Tensor, "rows out"]
    ) -> Float[Tensor, "rows out"]:
        """`sum` with the product of each row added, in place, in every process."""
        return sum.add_(self(x))
