"""Scales of 4-bit weights, kept exact while bitsandbytes rearranges them.

On processors with AVX512-BF16, bitsandbytes 0.50 lays out 4-bit weights anew at the first answer, and rounds
their scales to bfloat16. When it lays them back for saving, nested scales are quantised a second time and
others are written in the wrong order: what was saved after an answer was another model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """What belongs to the 4-bit weights of one module, as it was loaded."""

    state: Any
    absmax: Tensor
    offset: Tensor | None
    nested: Any


def remembered_scales(model: nn.Module) -> dict[str, Scales]:
    """The scales of all 4-bit modules by name; nothing is copied.

    Modules whose shape the fast layout cannot hold are told not to use it.
    """
    found = {}
    for name, module in _four_bit(model):
        state = module.weight.quant_state
        if state is None:
            continue
        found[name] = Scales(
            state=state,
            absmax=state.absmax,
            offset=getattr(state, "offset", None),
            nested=getattr(state, "state2", None),
        )
        if module.in_features % state.blocksize or module.out_features % 32:
            module.support_avx512bf16_for_cpu = False
    return found


def restore_scales(model: nn.Module, scales: dict[str, Scales]) -> None:
    """Lay 4-bit weights back as they were loaded, scales and all; the next answer rearranges them again."""
    for name, module in _four_bit(model):
        state = module.weight.quant_state
        kept = scales.get(name)
        if kept is None or kept.state is not state or not getattr(state, "packing_format_for_cpu", False):
            continue
        module.state_dict()  # Lays the weights back, as a side effect.
        state.absmax, state.offset = kept.absmax, kept.offset
        if kept.nested is not None:
            state.state2 = kept.nested


def _four_bit(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, module) for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"]
