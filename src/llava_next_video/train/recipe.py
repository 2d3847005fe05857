"""The settings of a training run: a TOML file, checked word by word.

Nothing in it is ignored: a setting that is not known, of the wrong type, or that would have no effect is
refused with the nearest known name.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from llava_next_video.checkpoint_name import DEFAULT, default_checkpoint
from llava_next_video.data.mixture import Source, read_mixture, read_source
from llava_next_video.errors import ConfigError
from llava_next_video.train.dpo_settings import DpoSettings, check_dpo
from llava_next_video.train.settings import place_value, read_section, toml_value

Stage = Literal["align", "sft", "dpo"]
Part = Literal["tower", "projector", "newline", "language_model"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """What to learn from, and how clips are looked at.

    Attributes:
        sources: Files, or tables with path, root, take and weight.
        mixture: A mixture file instead of `sources`.
        template: Chat template by name; None is the checkpoint's own.
        bare: Leave the user's words out, so that the answer follows the bare medium.
        sampling: How frames are chosen; `frames` is their number (for `fps`: the most).
        frames_per_second: Wanted by the sampling `fps` only.
        pack: Put questions about one clip into one sequence, each blind to the others.
        pack_tokens: The longest packed sequence.
        context: The longest sample in tokens; None is what the model has positions for.
        too_long: What happens to a longer sample: stop, drop it, or shorten its text.
        bad_rows: What happens to a row that cannot be used: stop, or drop and name it.
        bad_media: What happens to a sample whose medium does not open: stop, or drop and name it.
        timeout_s: Seconds to decode one medium.
        workers: Processes that prepare batches; 0 prepares them between the steps.
    """

    sources: tuple[Source, ...] = ()
    mixture: str | None = None
    template: str | None = None
    bare: bool = False
    sampling: Literal["uniform", "linspace", "fps"] = "uniform"
    frames: int = 8
    frames_per_second: float | None = None
    pack: bool = False
    pack_tokens: int = 1024
    context: int | None = None
    too_long: Literal["stop", "drop", "shorten"] = "stop"
    bad_rows: Literal["stop", "drop"] = "stop"
    bad_media: Literal["stop", "drop"] = "drop"
    timeout_s: float = 60.0
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningSettings:
    """How fast and how long.

    Attributes:
        lr: Learning rate of the parts that `rates` does not name.
        rates: Learning rate by part.
        steps: Optimizer steps; None counts `epochs` instead.
        batch: Samples a device sees at once.
        accumulate: Batches added up before a step; eight of one equal one of eight.
        warmup: Share of the steps in which the rate rises.
        schedule: How it falls; `constant_decay` falls to zero in the last third only.
        betas: Decay of AdamW's mean and square.
        optimizer: `muon` orthogonalises the updates of hidden matrices and uses AdamW for the rest.
        precision: `bfloat16` computes in it with float32 weights; `bfloat16_weights` stores them so too, and
            keeps float32 copies in the optimizer.
        checkpointing: Compute activations again in the backward pass, to save memory.
    """

    lr: float = 1e-5
    rates: Mapping[Part, float] = field(default_factory=dict)
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 1
    accumulate: int = 1
    warmup: float = 0.03
    schedule: Literal["cosine", "linear", "constant", "constant_decay"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    betas: tuple[float, ...] = (0.9, 0.999)
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Literal["float32", "bfloat16", "bfloat16_weights"] = "bfloat16"
    checkpointing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters instead of whole matrices.

    Attributes:
        rank: Width of the adapters; 0 is no LoRA.
        parts: Parts that get adapters; the tower only when it is named.
        bits: Quantise the language model to 4 (NF4) or 8 bits underneath (QLoRA).
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.05
    parts: tuple[Literal["language_model", "tower"], ...] = ("language_model",)
    bits: Literal[4, 8] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingSettings:
    """How often to save and report.

    Attributes:
        every: Steps between checkpoints.
        keep: Checkpoints that stay; None keeps all.
        log_every: Steps between lines in metrics.jsonl.
        report_to: Trackers of transformers, e.g. tensorboard, wandb.
    """

    every: int = 500
    keep: int | None = 2
    log_every: int = 10
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A training run.

    Attributes:
        model: Checkpoint folder or hub name to start from; `default` is the package's own.
        output: Folder for checkpoints, metrics and the final model.
        tune: Parts that learn whole; None: `align` the projector, `sft` all parts (with LoRA the projector),
            `dpo` the language model (with LoRA nothing beside the adapters).
        dpo: How answers are preferred; `dpo` alone has it.
        resume: Go on from the last checkpoint in `output`, when there is one.
        trainer: Further arguments of `transformers.TrainingArguments`, e.g. fsdp or deepspeed.
    """

    model: str
    output: str
    seed: int = 0
    tune: tuple[Part, ...] | None = None
    resume: bool = True
    data: DataSettings = field(default_factory=DataSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    dpo: DpoSettings | None = None
    saving: SavingSettings = field(default_factory=SavingSettings)
    trainer: Mapping[str, Any] = field(default_factory=dict)


# What a stage changes before the recipe speaks.
# Source: LLaVA-NeXT, `scripts/train/pretrain_clip.sh` and `direct_finetune_clip.sh`; `llava/train/train.py`,
# `preprocess_plain`; the preference recipe of the 7B-DPO checkpoint (lr 5e-7, linear, a tenth of warm-up).
STAGES: Mapping[Stage, Mapping[str, object]] = {
    "align": {"data.template": "plain", "data.bare": True, "learning.lr": 1e-3, "tune": ["projector"]},
    "sft": {"learning.lr": 1e-5},
    "dpo": {"learning.lr": 5e-7, "learning.schedule": "linear", "learning.warmup": 0.1, "dpo.beta": 0.1},
}


def read_recipe(path: str | os.PathLike[str], stage: Stage, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a TOML file, over the stage's defaults and under the overrides (`a.b=c`).

    Relative paths start in the recipe's folder.

    Raises:
        ConfigError: A file that is no TOML, or a setting that is not known or of the wrong type.
    """
    file = Path(path)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; give a recipe as TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    for name, value in STAGES[stage].items():
        if name == "tune" and "lora" in table:
            continue
        place_value(table, name, value, replace=False)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"cannot set {override!r}; expected name=value, e.g. learning.lr=1e-4")
        place_value(table, name.strip(), toml_value(text.strip()), replace=True)
    if stage != "dpo" and "dpo" in table:
        raise ConfigError(f"[dpo] has no effect in `train {stage}`; take it out, or use `train dpo`")
    return parse_recipe(table, file.parent)


def parse_recipe(table: Mapping[str, object], folder: Path) -> Recipe:
    """The recipe of a table; relative paths start in `folder`.

    Raises:
        ConfigError: A setting that is not known, of the wrong type, or at odds with another.
    """
    given = dict(table)
    data = given.get("data")
    if isinstance(data, Mapping) and "sources" in data:
        entries = data["sources"]
        listed = entries if isinstance(entries, list) else [entries]
        given["data"] = {**data, "sources": tuple(read_source(entry, folder) for entry in listed)}
    recipe = read_section(Recipe, given, kept=(Source,))
    output, model = str(folder / recipe.output), recipe.model
    if (folder / model).exists():
        model = str(folder / model)
    elif model == DEFAULT:
        model = str(default_checkpoint())
    dpo = recipe.dpo
    if dpo is not None and dpo.reference_model is not None and (folder / dpo.reference_model).exists():
        recipe = dataclasses.replace(
            recipe, dpo=dataclasses.replace(dpo, reference_model=str(folder / dpo.reference_model))
        )
    mixture = recipe.data.mixture
    if mixture is not None and recipe.data.sources:
        raise ConfigError("data.mixture and data.sources are both given; keep one")
    if mixture is not None:
        sources = read_mixture(folder / mixture)
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, sources=sources))
    recipe = dataclasses.replace(recipe, output=output, model=model)
    _check(recipe)
    return recipe


def _check(recipe: Recipe) -> None:
    data, learning, lora = recipe.data, recipe.learning, recipe.lora
    at_least = {
        "data.frames": (data.frames, 1),
        "data.pack_tokens": (data.pack_tokens, 1),
        "data.workers": (data.workers, 0),
        "learning.steps": (1 if learning.steps is None else learning.steps, 1),
        "learning.batch": (learning.batch, 1),
        "learning.accumulate": (learning.accumulate, 1),
        "learning.warmup": (learning.warmup, 0),
        "learning.weight_decay": (learning.weight_decay, 0),
        "lora.rank": (lora.rank, 0),
        "saving.every": (recipe.saving.every, 1),
        "saving.log_every": (recipe.saving.log_every, 1),
    }
    for name, (value, least) in at_least.items():
        if value < least:
            raise ConfigError(f"{name} is {value}; expected at least {least}")
    for name, rate in {
        "learning.lr": learning.lr,
        **{f"learning.rates.{k}": v for k, v in learning.rates.items()},
    }.items():
        if rate < 0:
            raise ConfigError(f"{name} is {rate}; a learning rate is not negative")
    if len(learning.betas) != 2 or not all(0 <= beta < 1 for beta in learning.betas):
        raise ConfigError(f"learning.betas is {list(learning.betas)}; expected two numbers from 0 to below 1")
    masters = learning.optimizer == "muon" or learning.precision == "bfloat16_weights"
    if masters and (sharded := [name for name in ("fsdp", "deepspeed") if recipe.trainer.get(name)]):
        raise ConfigError(
            f"trainer.{sharded[0]} splits weights that muon and bfloat16_weights need whole; use optimizer "
            "'adamw' and precision 'bfloat16' with it"
        )
    if lora.bits is not None and lora.rank == 0:
        raise ConfigError("lora.bits needs lora.rank: quantised weights cannot learn without adapters")
    if lora.rank and (unfit := [part for part in recipe.tune or () if part != "projector"]):
        raise ConfigError(
            f"tune has {unfit[0]!r} beside LoRA; adapters go where lora.parts says, and only the projector "
            "can be tuned whole with them"
        )
    if recipe.dpo is not None:
        split = next((name for name in ("fsdp", "deepspeed") if recipe.trainer.get(name)), None)
        check_dpo(recipe.dpo, lora=lora.rank > 0, sharded=split)
        if unfit_data := [name for name in ("bare", "pack") if getattr(data, name)]:
            raise ConfigError(f"data.{unfit_data[0]} has no place in `train dpo`; take it out")
    if data.sampling == "fps" and data.frames_per_second is None:
        raise ConfigError("data.sampling 'fps' needs data.frames_per_second")
    if data.sampling != "fps" and data.frames_per_second is not None:
        raise ConfigError(f"data.frames_per_second has no effect with sampling {data.sampling!r}; use 'fps'")


def tuned_parts(recipe: Recipe) -> tuple[Part, ...]:
    """The parts that are tuned whole."""
    if recipe.tune is not None:
        return recipe.tune
    if recipe.dpo is not None:
        return () if recipe.lora.rank else ("language_model",)
    return ("projector",) if recipe.lora.rank else PARTS
