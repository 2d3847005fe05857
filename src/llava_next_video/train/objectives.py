"""What a step makes smaller: small functions from a model and a batch to a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llava_next_video.data.encode import IGNORED

Objective = Callable[[nn.Module, dict[str, Any], "Tensor | int"], Float[Tensor, ""]]
"""Model, batch, and what the whole optimizer step holds (over which the loss is a mean): learned tokens."""


def imitate(model: nn.Module, batch: dict[str, Any], items: Tensor | int) -> Float[Tensor, ""]:
    """Mean cross-entropy of what the assistant spoke (supervised fine-tuning).

    The head is applied only where something is learned: with a vocabulary of 32,000, logits for thousands of
    visual tokens would cost more memory than the network. Divided by the tokens of the whole step, the losses
    of accumulated batches add up to that of one large batch.
    """
    inputs = dict(batch)
    targets = inputs.pop("labels")[:, 1:]
    learned = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    logits = model(**inputs, logits_to_keep=learned, use_cache=False).logits
    wanted = targets[:, learned]
    total = F.cross_entropy(
        logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / torch.as_tensor(items).clamp(min=1)


def learned_tokens(batch: dict[str, Any]) -> Int[Tensor, ""]:
    """How many tokens of a batch are learned; the first of a row is never predicted."""
    return (batch["labels"][:, 1:] != IGNORED).sum()
