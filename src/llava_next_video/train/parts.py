"""Which parts of the network learn, and how fast.

The parts are the vision tower, the projector (with a learned pooling), the newline token (with that at the
end of slow-fast frames), and the language model (with its head). Adapters (LoRA) never touch the tower
unless it is named.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from llava_next_video.errors import ConfigError, MissingExtraError
from llava_next_video.train.recipe import PARTS, LoraSettings, Part

PART_OF: Mapping[str, Part] = {
    "vision_tower": "tower",
    "multi_modal_projector": "projector",
    "vision_resampler": "projector",
    "image_newline": "newline",
    "faster_token": "newline",
    "language_model": "language_model",
    "lm_head": "language_model",
}

# Spelled out with the path: a bare "q_proj" or "all-linear" would reach into the vision tower too.
LORA_TARGETS: Mapping[str, str] = {
    "language_model": r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    "tower": r".*vision_tower\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """One line of the table of what learns."""

    part: Part
    parameters: int
    trainable: int
    lr: float | None


def part_of(name: str) -> Part:
    """The part a parameter belongs to, adapters included.

    >>> part_of("model.language_model.layers.0.mlp.up_proj.weight"), part_of("lm_head.weight")
    ('language_model', 'language_model')
    >>> part_of("base_model.model.model.vision_tower.encoder.layers.0.mlp.fc1.lora_A.default.weight")
    'tower'
    """
    for piece in name.split("."):
        if piece in PART_OF:
            return PART_OF[piece]
    raise ValueError(f"parameter {name} belongs to no part")


def open_parts(model: nn.Module, parts: Sequence[Part]) -> None:
    """Let exactly these parts learn, and freeze the others.

    Raises:
        ConfigError: The head shares its weights with the embeddings or a part has no parameters.
    """
    found = set()
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(part in parts)
        found.add(part)
    if missing := [part for part in parts if part not in found]:
        raise ConfigError(f"tune has {missing[0]!r}, but this model has no such part")


def add_adapters(model: nn.Module, lora: LoraSettings, whole: Sequence[Part]) -> nn.Module:
    """The model with LoRA adapters on `lora.parts`; of the rest only the projector may learn whole.

    Raises:
        MissingExtraError: PEFT is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("LoRA needs peft; pip install 'llava-next-video[train]'") from error
    if lora.bits is not None:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="|".join(f"({LORA_TARGETS[part]})" for part in lora.parts),
        modules_to_save=["multi_modal_projector"] if "projector" in whole else None,
    )
    with warnings.catch_warnings():
        # PEFT 0.21 asks under the name that transformers 5.23 is giving up.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return peft.get_peft_model(model, config)


def parameter_groups(
    model: nn.Module, *, lr: float, rates: Mapping[Part, float], weight_decay: float, matrices_apart: bool
) -> list[dict[str, Any]]:
    """Optimizer groups by part: biases, norms and single vectors never decay.

    With `matrices_apart`, hidden matrices are groups of their own (`"matrices": True`): those of two axes
    that are neither embeddings nor the head.

    Raises:
        ConfigError: Nothing learns, or a rate is given for a part that does not learn.
    """
    groups: dict[tuple[Part, bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, decays = part_of(name), parameter.ndim >= 2
        hidden = matrices_apart and parameter.ndim == 2 and not _is_table(name)
        group = groups.setdefault(
            (part, decays, hidden),
            {
                "params": [],
                "lr": rates.get(part, lr),
                "weight_decay": weight_decay if decays else 0.0,
                "part": part,
                "matrices": hidden,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ConfigError("nothing would learn; name parts in tune or set lora.rank")
    learning = {part for part, _, _ in groups}
    if idle := [part for part in rates if part not in learning]:
        raise ConfigError(
            f"learning.rates has {idle[0]!r}, which does not learn; take it out or add it to tune"
        )
    return list(groups.values())


def _is_table(name: str) -> bool:
    """Embeddings and the head: rows that are looked up or compared, not multiplied through."""
    return "embed" in name or name.endswith("lm_head.weight")


def part_table(model: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[PartRow]:
    """For every part how many of its parameters learn, and at which rate."""
    total = dict.fromkeys(PARTS, 0)
    trainable = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        total[part_of(name)] += parameter.numel()
        trainable[part_of(name)] += parameter.numel() if parameter.requires_grad else 0
    rates = {group["part"]: float(group["lr"]) for group in groups}
    return [
        PartRow(part=part, parameters=total[part], trainable=trainable[part], lr=rates.get(part))
        for part in PARTS
    ]


def table_text(rows: Sequence[PartRow]) -> str:
    """The table as people read it.

    >>> print(table_text([PartRow(part="projector", parameters=2000, trainable=2000, lr=0.001)]))
    part            parameters  trainable  learning rate
    projector            2,000      2,000          0.001
    all                  2,000      2,000
    """
    lines = [f"{'part':<14}{'parameters':>12}{'trainable':>11}{'learning rate':>15}"]
    for row in rows:
        rate = "frozen" if row.lr is None else f"{row.lr:g}"
        lines.append(f"{row.part:<14}{row.parameters:>12,}{row.trainable:>11,}{rate:>15}")
    total = sum(row.parameters for row in rows), sum(row.trainable for row in rows)
    lines.append(f"{'all':<14}{total[0]:>12,}{total[1]:>11,}")
    return "\n".join(lines)
