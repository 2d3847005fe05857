"""What a model that learns preferences is compared with: itself before, or another checkpoint."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import extract_model_from_parallel, gather_object
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llava_next_video.errors import ConfigError, DataError
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.comparing import Batch, token_logprobs
from llava_next_video.train.pairs import PairCollator, Pairs

CACHE = "reference.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A network that stays as it is."""

    network: nn.Module
    shares_sight: bool

    def logprobs(self, model: nn.Module, batch: Batch) -> Float[Tensor, " tokens"]:
        """Log-probabilities under the frozen network."""
        return token_logprobs(self.network, batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOff:
    """The model itself with its adapters switched off."""

    shares_sight: bool

    def logprobs(self, model: nn.Module, batch: Batch) -> Float[Tensor, " tokens"]:
        """Log-probabilities under what lies below the adapters."""
        adapted: Any = extract_model_from_parallel(model)
        with adapted.disable_adapter():
            return token_logprobs(adapted, batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """Log-probabilities that were computed before, by the number of the pair."""

    known: dict[int, Tensor]
    shares_sight: bool = True

    def logprobs(self, model: nn.Module, batch: Batch) -> Float[Tensor, " tokens"]:
        """The log-probabilities of the batch's pairs.

        Raises:
            DataError: A pair's medium could not be read then, and can be now.
        """
        numbers = batch["pairs"].tolist()
        if missing := [number for number in numbers if number not in self.known]:
            raise DataError(
                f"pair {missing[0] + 1} of this run has no cached reference: its medium could not be read "
                f"when the others were computed; delete {CACHE} in the output folder and start again"
            )
        found = [self.known[number] for number in numbers]
        joined = torch.cat(found) if found else torch.zeros(0)
        return joined.to(batch["input_ids"].device)


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is now; what does not learn is shared with it and takes no memory twice."""
    shared: dict[int, Any] = {
        id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad
    }
    return copy.deepcopy(model, shared).requires_grad_(False).eval()


def load_reference(
    name: str,
    processor: LlavaNextVideoProcessor,
    config: LlavaNextVideoConfig,
    *,
    dtype: torch.dtype,
    frames: int,
) -> nn.Module:
    """Another checkpoint as the reference, frozen.

    Raises:
        ConfigError: Its tokenizer is another, or it sees clips in another way.
    """
    own = processor.tokenizer.get_vocab()
    other = LlavaNextVideoProcessor.from_pretrained(name).tokenizer.get_vocab()
    if own != other:
        raise ConfigError(
            f"the reference {name} has another tokenizer ({len(other):,} tokens, this model {len(own):,}, "
            f"{len(own.items() & other.items()):,} alike), so their log-probabilities cannot be compared; "
            "take a reference from the same family"
        )
    seen = LlavaNextVideoConfig.from_pretrained(name)
    for what, mine, theirs in (
        ("visual tokens a clip", config.video_layout(frames).tokens, seen.video_layout(frames).tokens),
        ("pixels a side", config.vision_config.image_size, seen.vision_config.image_size),
    ):
        if mine != theirs:
            raise ConfigError(
                f"the reference {name} has {theirs} {what}, this model {mine}; take one that sees alike"
            )
    network = LlavaNextVideoForConditionalGeneration.from_pretrained(name, dtype=dtype)
    return network.requires_grad_(False).eval()


def cached_logprobs(
    path: Path,
    network: nn.Module,
    pairs: Pairs,
    collate: PairCollator,
    *,
    batch: int,
    told: str,
    narrow: Callable[[], AbstractContextManager[object]],
    progress: Callable[[int], None],
) -> Cached:
    """The log-probabilities of all pairs, from the file of an earlier start or computed and written to it.

    Several processes share the work. `told` says what else the values depend on.
    """
    key = hashlib.sha256(json.dumps([told, pairs.names, pairs.lengths]).encode()).hexdigest()
    known = _read(path, key)
    if known is not None:
        return Cached(known=known)
    state = PartialState()
    network.to(state.device).eval()
    order = sorted(range(len(pairs)), key=lambda number: pairs.lengths[number])
    mine = order[state.process_index :: state.num_processes]
    found: list[tuple[int, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(mine), batch):
            made = collate([pairs[number] for number in mine[start : start + batch]])
            found += _of_batch(network, made, state.device, narrow)
            progress(min(start + batch, len(mine)) * state.num_processes)
    known = dict(gather_object(found)) if state.num_processes > 1 else dict(found)
    if state.is_main_process:
        partial = path.with_name(f"partial-{path.name}")
        save_file({str(number): values for number, values in known.items()}, partial, {"key": key})
        partial.replace(path)
    state.wait_for_everyone()
    return Cached(known=known)


def _of_batch(
    network: nn.Module,
    made: Batch,
    device: torch.device,
    narrow: Callable[[], AbstractContextManager[object]],
) -> Sequence[tuple[int, Tensor]]:
    """Each pair of a batch with the log-probabilities of its answer tokens."""
    inputs = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in made.items()
        if name not in ("samples", "dropped")
    }
    if isinstance(clips := inputs.get("pixel_values_videos"), list):
        inputs["pixel_values_videos"] = [clip.to(device) for clip in clips]
    if not len(inputs["pairs"]):
        return []
    with narrow():
        values = token_logprobs(network, inputs).cpu()
    lengths = (inputs["labels"][:, 1:] >= 0).sum(dim=1).tolist()
    return list(zip(inputs["pairs"].tolist(), values.split(lengths), strict=True))


def _read(path: Path, key: str) -> dict[int, Tensor] | None:
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("key") != key:
            return None
        return {int(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
