"""The lesson of `train dpo`: pairs, a reference, and the objective that compares with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from accelerate import PartialState
from torch import nn

from llava_next_video.data.record import Sample
from llava_next_video.errors import DataError
from llava_next_video.train.comparing import Comparing, Reference, sight_is_frozen
from llava_next_video.train.dpo_settings import DpoSettings, reference_kind
from llava_next_video.train.journal import Journal, Report
from llava_next_video.train.lesson import Lesson, Tools
from llava_next_video.train.pairs import PairCollator, Pairs, wanted_pairs
from llava_next_video.train.recipe import Recipe
from llava_next_video.train.reference import (
    CACHE,
    AdapterOff,
    Frozen,
    cached_logprobs,
    frozen_copy,
    load_reference,
)


def preference(
    samples: Sequence[Sample],
    recipe: Recipe,
    dpo: DpoSettings,
    tools: Tools,
    *,
    network: nn.Module,
    journal: Journal,
    bad: list[DataError] | None,
    report: Report,
) -> Lesson:
    """Learn to prefer the chosen answer of each pair, compared with what the network says now.

    Rows that cannot be used go into `bad`, where it is given.

    Raises:
        DataError: A conversation, a pair of equal answers, or no pairs at all.
        ConfigError: A reference that does not fit the model.
    """
    pairs = Pairs(
        wanted_pairs(samples, bad),
        encoder=tools.encoder,
        processor=tools.processor,
        layouts=tools.config,
        rules=tools.rules,
        decoder=tools.decoder,
    )
    state = PartialState(cpu=not torch.accelerator.is_available())
    narrow = functools.partial(
        torch.autocast,
        state.device.type,
        torch.bfloat16,
        enabled=recipe.learning.precision == "bfloat16",
    )
    collate = PairCollator(tools.padding)
    objective = Comparing(
        dpo=dpo,
        reference=_reference(recipe, dpo, tools, network, pairs, collate, narrow, report),
        narrow=narrow,
        tell=journal.tell,
    )
    return Lesson(
        sequences=pairs, names=pairs.names, collate=collate, objective=objective, count=Comparing.count
    )


def _reference(
    recipe: Recipe,
    dpo: DpoSettings,
    tools: Tools,
    network: nn.Module,
    pairs: Pairs,
    collate: PairCollator,
    narrow: Callable[[], AbstractContextManager[object]],
    report: Report,
) -> Reference:
    sight = sight_is_frozen(network)
    kind = reference_kind(dpo, lora=recipe.lora.rank > 0)
    if kind == "adapter":
        return AdapterOff(shares_sight=sight)
    other: nn.Module | None = None
    device = PartialState().device
    if dpo.reference_model is not None:
        narrow_weights = recipe.learning.precision == "bfloat16_weights"
        other = load_reference(
            dpo.reference_model,
            tools.processor,
            tools.config,
            dtype=torch.bfloat16 if narrow_weights else torch.float32,
            frames=recipe.data.frames,
        )
    if kind == "copy":
        if other is not None:
            return Frozen(network=other.to(device), shares_sight=False)
        return Frozen(network=frozen_copy(network.to(device)), shares_sight=sight)
    count = len(pairs)
    return cached_logprobs(
        Path(recipe.output) / CACHE,
        network if other is None else other,
        pairs,
        collate,
        batch=recipe.learning.batch,
        told=f"{dpo.reference_model or recipe.model} {recipe.learning.precision} {recipe.data}",
        narrow=narrow,
        progress=lambda done: report(f"reference {min(done, count):,}/{count:,}"),
    )
