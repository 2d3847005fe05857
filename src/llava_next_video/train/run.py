"""From a recipe to a trained model: load, open parts, learn, save."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import set_seed

from llava_next_video.data.dataset import Rules
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import TextEncoder
from llava_next_video.data.mixture import gather
from llava_next_video.data.record import Sample
from llava_next_video.errors import CapacityError, ConfigError, DataError
from llava_next_video.media import Sampling
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.checkpoint import checkpoint_folder
from llava_next_video.model.context import context_limit
from llava_next_video.model.quantised import bitsandbytes_config
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.processing.chat import pick_template
from llava_next_video.train.journal import Journal, Report, silent
from llava_next_video.train.lesson import Lesson, Tools, imitation
from llava_next_video.train.loop import Loop
from llava_next_video.train.parts import (
    PartRow,
    add_adapters,
    open_parts,
    parameter_groups,
    part_table,
    table_text,
)
from llava_next_video.train.preferring import preference
from llava_next_video.train.recipe import DataSettings, Recipe, Stage, read_recipe, tuned_parts
from llava_next_video.train.saving import checkpoints, clear_attempts, step_of

FINAL, SETTINGS, DATA = "final", "recipe.json", "data.sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came out of a run.

    Attributes:
        folder: The trained model, or its adapter, with its processor.
        loss: Mean loss over the steps of this run (not of those before a resume; 0 if there were none).
        dropped: Samples that were left out because of their row, media or length.
        table: What learned, and how fast.
    """

    folder: Path
    steps: int
    loss: float
    dropped: int
    table: tuple[PartRow, ...]


def run_training(
    recipe_path: str | os.PathLike[str],
    stage: Stage,
    overrides: Sequence[str] = (),
    *,
    report: Report = silent,
) -> Trained:
    """Train as the recipe says; a run that was interrupted goes on where its last checkpoint was.

    Args:
        recipe_path: A TOML file.
        stage: `align`, `sft` or `dpo`.
        overrides: Settings over those of the file, `learning.lr=1e-4`.
        report: Gets lines for people: the table of what learns, progress, dropped samples.

    Raises:
        ConfigError: A setting that cannot be honoured.
        DataError: A sample that cannot be used.
        CapacityError: A sample beyond the context, or no room to save.
    """
    recipe = read_recipe(recipe_path, stage, overrides)
    if not recipe.data.sources:
        raise ConfigError("the recipe names no data; add data.sources or data.mixture")
    unusable: list[DataError] = []
    drops = recipe.data.bad_rows == "drop"
    samples = gather(recipe.data.sources, recipe.seed, bad=unusable.append if drops else None)
    for error in unusable:
        report(f"dropped {error}")
    processor = LlavaNextVideoProcessor.from_pretrained(checkpoint_folder(recipe.model))
    trained = train(load_model(recipe), processor, samples, recipe, report=report)
    return dataclasses.replace(trained, dropped=trained.dropped + len(unusable))


def load_model(recipe: Recipe) -> LlavaNextVideoForConditionalGeneration:
    """The model that the recipe starts from, in the precision it learns in."""
    narrow = recipe.learning.precision == "bfloat16_weights"
    settings: dict[str, object] = {"dtype": torch.bfloat16 if narrow else torch.float32}
    if recipe.lora.bits is not None:
        settings |= {"quantization_config": bitsandbytes_config(recipe.lora.bits), "dtype": torch.bfloat16}
    return LlavaNextVideoForConditionalGeneration.from_pretrained(checkpoint_folder(recipe.model), **settings)


def train(
    model: LlavaNextVideoForConditionalGeneration,
    processor: LlavaNextVideoProcessor,
    samples: Sequence[Sample],
    recipe: Recipe,
    *,
    report: Report = silent,
) -> Trained:
    """Train a model at hand on samples at hand; otherwise as `run_training`."""
    output = Path(recipe.output)
    # Every process runs this function; only the first one speaks and tidies up.
    leads = int(os.environ.get("RANK", "0")) == 0
    resumed = _last_checkpoint(output, recipe)
    if leads:
        output.mkdir(parents=True, exist_ok=True)
        clear_attempts(output)
    else:
        report = silent
    set_seed(recipe.seed)
    limit = context_limit(model.config)
    parts = tuned_parts(recipe)
    network: nn.Module = model
    if recipe.lora.rank:
        network = add_adapters(model, recipe.lora, parts)
    else:
        open_parts(model, parts)
    if recipe.learning.checkpointing:
        # The name that transformers 5.23 gave it; before, it was called after gradients.
        new_name = hasattr(model, "activation_checkpointing_enable")
        enable = model.activation_checkpointing_enable if new_name else model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    learning = recipe.learning
    groups = parameter_groups(
        network, lr=learning.lr, rates=learning.rates, weight_decay=0.0, matrices_apart=False
    )
    table = part_table(network, groups)
    report(table_text(table))
    with Decoder(timeout_s=recipe.data.timeout_s) as decoder:
        tools = Tools(
            processor=processor,
            encoder=text_encoder(processor, recipe.data),
            config=model.config,
            rules=rules(recipe.data, limit),
            decoder=decoder,
        )
        journal = Journal(output, report)
        unusable: list[DataError] = []
        if recipe.dpo is None:
            lesson = imitation(samples, recipe.data, tools)
        else:
            lesson = preference(
                samples,
                recipe,
                recipe.dpo,
                tools,
                network=network,
                journal=journal,
                bad=unusable if recipe.data.bad_rows == "drop" else None,
                report=report,
            )
        for error in unusable:
            report(f"dropped {error}")
        _refuse_other_data(output, lesson, resumed)
        loop = Loop(network, recipe=recipe, lesson=lesson, processor=processor, journal=journal)
        lengths = lesson.sequences.lengths
        report(
            f"{len(samples) - len(unusable):,} samples in {len(lengths):,} sequences of up to "
            f"{max(lengths):,} tokens"
        )
        done = step_of(resumed) if resumed else 0
        if resumed is not None and done >= loop.planned_steps:
            report(f"all {done:,} steps were done before")
            loop.load_weights(resumed)
            loss = 0.0
        else:
            result = loop.train(resume_from_checkpoint=str(resumed) if resumed else None)
            done, loss = result.global_step, result.training_loss
    loop.save_final(output / FINAL)
    return Trained(
        folder=output / FINAL,
        steps=done,
        loss=loss,
        dropped=len(journal.dropped) + len(unusable),
        table=tuple(table),
    )


def text_encoder(processor: LlavaNextVideoProcessor, settings: DataSettings) -> TextEncoder:
    """The encoder of the checkpoint's own template, or of the one that the recipe names."""
    return TextEncoder(
        processor.tokenizer,
        pick_template(settings.template, processor.chat_template),
        image_token=processor.image_token,
        video_token=processor.video_token,
    )


def rules(settings: DataSettings, limit: int) -> Rules:
    """How samples are made ready for a model with that context.

    Raises:
        CapacityError: The recipe wants a longer context than the model has.
    """
    context = settings.context or limit
    if context > limit:
        raise CapacityError(
            f"data.context is {context}, and the model has positions for {limit}; take it out, or start from "
            "a checkpoint with a larger rope factor"
        )
    return Rules(
        sampling=Sampling(
            how=settings.sampling, frames=settings.frames, per_second=settings.frames_per_second
        ),
        context=context,
        pack_tokens=settings.pack_tokens if settings.pack else None,
        too_long=settings.too_long,
        bad_media=settings.bad_media,
    )


def _refuse_other_data(output: Path, lesson: Lesson, resumed: Path | None) -> None:
    """Raise when a run would go on with other sequences than it has seen so far.

    Raises:
        ConfigError: The files changed since.
    """
    told = repr(list(zip(lesson.names, lesson.sequences.lengths, strict=True)))
    digest, path = hashlib.sha256(told.encode()).hexdigest(), output / DATA
    if resumed is None:
        path.write_text(digest + "\n", encoding="utf-8")
    elif path.exists() and path.read_text(encoding="utf-8").strip() != digest:
        raise ConfigError(
            f"{output} was trained so far on other samples; restore the files to go on, or choose another "
            "output to start anew"
        )


def _last_checkpoint(output: Path, recipe: Recipe) -> Path | None:
    """Where to go on; the settings that decide the steps must be those of the run so far.

    Raises:
        ConfigError: They are not, or the run is not to be resumed.
    """
    settings = json.loads(json.dumps(dataclasses.asdict(recipe)))
    for name in ("output", "resume", "saving", "trainer"):
        del settings[name]
    for name in ("workers", "timeout_s", "bad_media"):
        del settings["data"][name]
    found, path = checkpoints(output), output / SETTINGS
    if found and not recipe.resume:
        raise ConfigError(f"{output} has {found[-1].name}, and resume is false; choose another output")
    if found and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for name in settings:
            if (was := before.get(name)) != settings[name]:
                name, was, now = _changed(name, was, settings[name])
                raise ConfigError(
                    f"{output} was trained so far with another {name!r} ({was!r}, now {now!r}); "
                    "restore it to go on, or choose another output to start anew"
                )
    if not found:
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return found[-1] if found else None


def _changed(name: str, was: object, now: object) -> tuple[str, object, object]:
    """The innermost setting that two values of one setting differ in: its dotted name, both values.

    >>> _changed("learning", {"lr": 1.0, "steps": 2}, {"lr": 1.0, "steps": 4})
    ('learning.steps', 2, 4)
    """
    while isinstance(was, dict) and isinstance(now, dict):
        inner = next(key for key in now if was.get(key) != now[key])
        name, was, now = f"{name}.{inner}", was.get(inner), now[inner]
    return name, was, now
