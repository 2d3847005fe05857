"""The objective of DPO: log-probabilities of both answers under the model and its reference.

What does not learn is computed once: a clip whose tower and projector are frozen becomes visual tokens a
single time for both answers and the reference, and the head speaks at answer tokens only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from accelerate.utils import extract_model_from_parallel
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from llava_next_video.data.encode import IGNORED
from llava_next_video.train.dpo_settings import DpoSettings
from llava_next_video.train.parts import part_of
from llava_next_video.train.preferences import FIGURES, Answers, preference_loss

Batch = dict[str, Any]
PIXELS = ("pixel_values", "image_sizes", "pixel_values_videos")
BESIDE = ("labels", "branches", "pairs")


@runtime_checkable
class Reference(Protocol):
    """What the model is compared with."""

    @property
    def shares_sight(self) -> bool:
        """Whether its visual tokens are those of a model whose visual parts are frozen."""
        ...

    def logprobs(self, model: nn.Module, batch: Batch) -> Float[Tensor, " tokens"]:
        """Log-probability of each answer token of the batch, row after row, without gradient."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """The objective: a batch of pairs to a loss; `tell` gets each of `FIGURES` as a sum and a count."""

    dpo: DpoSettings
    reference: Reference
    narrow: Callable[[], AbstractContextManager[object]]
    tell: Callable[[Mapping[str, Tensor]], None]

    def __call__(self, model: nn.Module, batch: Batch, items: Tensor | int) -> Float[Tensor, ""]:
        """The loss of one batch, as its share of the step that `items` counts (see `count`)."""
        seen = self._looked_at(model, batch)
        with torch.no_grad(), self.narrow():
            reference = self.reference.logprobs(model, seen if self.reference.shares_sight else batch)
        where = answer_places(batch)
        answers = Answers(
            policy=token_logprobs(model, seen),
            reference=reference,
            answer=_answer_numbers(batch)[where],
            pairs=len(batch["pairs"]),
        )
        total = torch.as_tensor(items, device=answers.policy.device)
        loss, told = preference_loss(answers, self.dpo, total)
        self.tell(dict(zip(FIGURES, told.unbind(1), strict=True)))
        return loss

    @staticmethod
    def count(batch: Batch) -> Int[Tensor, "2"]:
        """Pairs of a batch, and tokens of their chosen answers."""
        chosen = answer_places(batch) & (batch["branches"][:, 1:] == 1)
        return torch.stack([torch.tensor(len(batch["pairs"]), device=chosen.device), chosen.sum()])

    def _looked_at(self, model: nn.Module, batch: Batch) -> Batch:
        """The batch with visual tokens in place of pixels, where the parts that make them are frozen."""
        if not sight_is_frozen(model) or not any(name in batch for name in PIXELS):
            return batch
        with torch.no_grad(), self.narrow():
            visual = visual_tokens(bare(model), batch)
        return {name: value for name, value in batch.items() if name not in PIXELS} | {
            "mm_encoder_outputs": visual
        }


def token_logprobs(model: nn.Module, batch: Batch) -> Float[Tensor, " tokens"]:
    """Log-probability of each answer token of a batch, row after row; the head is applied nowhere else."""
    inputs = {name: value for name, value in batch.items() if name not in BESIDE}
    places = answer_places(batch)
    logits = model(**inputs, logits_to_keep=F.pad(places, (0, 1)), use_cache=False).logits
    targets = batch["labels"][:, 1:][places]
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def answer_places(batch: Batch) -> Tensor:
    """From which places (batch x length - 1) an answer token is predicted."""
    return batch["labels"][:, 1:] != IGNORED


def _answer_numbers(batch: Batch) -> Tensor:
    """For each place the number of the answer that its next token belongs to; -1 and odd ones where none."""
    branches = batch["branches"][:, 1:]
    return 2 * torch.arange(len(branches), device=branches.device)[:, None] + branches - 1


def bare(model: nn.Module) -> Any:
    """The network itself, without what trains it on several devices or adapts it."""
    network = extract_model_from_parallel(model)
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def sight_is_frozen(model: nn.Module) -> bool:
    """Whether nothing that makes visual tokens learns."""
    return not any(
        parameter.requires_grad and part_of(name.removeprefix("module.")) != "language_model"
        for name, parameter in model.named_parameters()
    )


def visual_tokens(network: Any, batch: Batch) -> dict[str, BaseModelOutputWithPooling]:
    """What `forward` takes in place of pixels."""
    found: dict[str, BaseModelOutputWithPooling] = {}
    if "pixel_values" in batch:
        made = network.get_image_features(batch["pixel_values"], batch["image_sizes"])
        found["image"] = BaseModelOutputWithPooling(pooler_output=made.pooler_output)
    if "pixel_values_videos" in batch:
        made = network.get_video_features(batch["pixel_values_videos"])
        found["video"] = BaseModelOutputWithPooling(pooler_output=made.pooler_output)
    return found
