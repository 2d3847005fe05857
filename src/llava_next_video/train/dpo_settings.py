"""What a recipe may say about learning from preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llava_next_video.errors import ConfigError

Loss = Literal["sigmoid", "hinge", "ipo", "kto_pair"]
ReferenceKind = Literal["auto", "copy", "adapter", "cached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoSettings:
    """How a chosen answer is preferred to a rejected one.

    Attributes:
        loss: `sigmoid` is DPO's own; `hinge`, `ipo` and `kto_pair` are its relatives.
        beta: How dearly the model pays for leaving the reference; more keeps it closer.
        label_smoothing: Share of pairs that are thought to be the wrong way round (`sigmoid` only).
        weight: Weight of the preference loss.
        sft_weight: Weight of the cross-entropy of the chosen answers, added to it.
        reference: What the model is compared with: a frozen `copy` of the start, the start under a LoRA
            `adapter` that is switched off, or its log-probabilities, computed once before the first step and
            `cached` in the output folder. `auto` is `adapter` with LoRA and `copy` without.
        reference_model: Another checkpoint, with the same tokenizer, in place of the start.
    """

    loss: Loss = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    weight: float = 1.0
    sft_weight: float = 0.0
    reference: ReferenceKind = "auto"
    reference_model: str | None = None


def check_dpo(dpo: DpoSettings, *, lora: bool, sharded: str | None) -> None:
    """Raise where the settings are out of range or at odds.

    Args:
        dpo: The settings.
        lora: Whether adapters are learned.
        sharded: The argument of the trainer that splits the weights over devices; None if none does.

    Raises:
        ConfigError: One sentence about the first such setting.
    """
    if not dpo.beta > 0:
        raise ConfigError(
            f"dpo.beta is {dpo.beta:g}; expected a number above 0, e.g. 0.1: with less the loss would not "
            "compare anything"
        )
    if not 0 <= dpo.label_smoothing < 0.5:
        raise ConfigError(
            f"dpo.label_smoothing is {dpo.label_smoothing:g}; expected a share from 0 to below 0.5"
        )
    if dpo.label_smoothing and dpo.loss != "sigmoid":
        raise ConfigError(f"dpo.label_smoothing has no effect with loss {dpo.loss!r}; use 'sigmoid'")
    for name, weight in (("weight", dpo.weight), ("sft_weight", dpo.sft_weight)):
        if not weight >= 0:
            raise ConfigError(f"dpo.{name} is {weight:g}; expected 0 or more")
    if dpo.weight == 0:
        raise ConfigError("dpo.weight is 0, so no preference would be learned; use `train sft` for that")
    if dpo.reference == "adapter" and not lora:
        raise ConfigError("dpo.reference 'adapter' needs lora.rank: there is no adapter to switch off")
    if dpo.reference == "adapter" and dpo.reference_model is not None:
        raise ConfigError(
            "dpo.reference_model has no effect with reference 'adapter'; use 'copy' or 'cached'"
        )
    if reference_kind(dpo, lora=lora) == "copy" and sharded is not None:
        raise ConfigError(
            f"trainer.{sharded} splits the weights, and a copy of them would be whole on every device; use "
            "dpo.reference 'cached'"
        )


def reference_kind(dpo: DpoSettings, *, lora: bool) -> Literal["copy", "adapter", "cached"]:
    """What `auto` stands for.

    >>> reference_kind(DpoSettings(), lora=True), reference_kind(DpoSettings(), lora=False)
    ('adapter', 'copy')
    """
    if dpo.reference != "auto":
        return dpo.reference
    return "adapter" if lora and dpo.reference_model is None else "copy"
