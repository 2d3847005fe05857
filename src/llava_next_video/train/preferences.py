"""Chosen above rejected: the losses of DPO and its relatives, and what they tell.

Knows nothing about media or networks: it gets log-probabilities of answers and gives a loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from llava_next_video.train.dpo_settings import DpoSettings

FIGURES = (
    "rewards_chosen",
    "rewards_rejected",
    "reward_margin",
    "reward_accuracy",
    "logp_chosen",
    "logp_rejected",
    "kl",
    "dpo_loss",
    "sft_loss",
)
"""What a batch tells, in this order: means over pairs; over tokens are `kl` and `sft_loss`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Log-probabilities of the tokens of all answers of a batch, under the model and under the reference.

    Attributes:
        policy: One for each answer token.
        reference: Likewise, without gradient.
        answer: Which answer each token belongs to: 0 is the first pair's chosen one, 1 its rejected one, ...
        pairs: Their number.
    """

    policy: Float[Tensor, " tokens"]
    reference: Float[Tensor, " tokens"]
    answer: Int[Tensor, " tokens"]
    pairs: int

    def sums(
        self, values: Float[Tensor, " tokens"]
    ) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Sums over the tokens of each chosen and of each rejected answer."""
        totals = values.new_zeros(2 * self.pairs).index_add(0, self.answer, values)
        return totals[0::2], totals[1::2]

    @property
    def in_chosen(self) -> Bool[Tensor, " tokens"]:
        """Which tokens belong to a chosen answer."""
        return self.answer % 2 == 0


def pair_losses(answers: Answers, dpo: DpoSettings) -> Float[Tensor, " pairs"]:
    """The loss of each pair.

    `ipo` compares means over tokens, the others sums. `kto_pair` estimates its two divergences from the pairs
    that are passed together, so it alone depends on how a step is cut into batches.

    Source: trl, `trl/trainer/dpo_trainer.py`, `_compute_loss` (sigmoid, hinge, ipo); LLaVA-NeXT,
    `trl/trainer/dpo_trainer.py`, `dpo_loss` (label smoothing, kto_pair).
    """
    ratios = answers.policy - answers.reference
    chosen, rejected = answers.sums(ratios)
    beta, smoothing = dpo.beta, dpo.label_smoothing
    match dpo.loss:
        case "sigmoid":
            margin = beta * (chosen - rejected)
            return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
        case "hinge":
            return torch.relu(1 - beta * (chosen - rejected))
        case "ipo":
            lengths = answers.sums(torch.ones_like(ratios))
            margin = chosen / lengths[0].clamp(min=1) - rejected / lengths[1].clamp(min=1)
            return (margin - 1 / (2 * beta)) ** 2
        case "kto_pair":
            towards_chosen = chosen.mean().clamp(min=0)
            towards_rejected = rejected.mean().clamp(min=0)
            wanted = 1 - torch.sigmoid(beta * (chosen - towards_rejected))
            unwanted = 1 - torch.sigmoid(beta * (towards_chosen - rejected))
            return (wanted + unwanted) / 2


def preference_loss(
    answers: Answers, dpo: DpoSettings, items: Float[Tensor, "2"] | Int[Tensor, "2"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "2 figures"]]:
    """A batch's share of the loss of its step, and its `FIGURES`: their sums, and over how many.

    `items` has the pairs of the whole step and the tokens of its chosen answers: divided by them, the losses
    of accumulated batches add up to that of one large batch.
    """
    losses = pair_losses(answers, dpo) if answers.pairs else answers.policy.sum()[None]
    spoken = -answers.policy[answers.in_chosen].sum()
    pairs, tokens = items.clamp(min=1).unbind()
    loss = dpo.weight * losses.sum() / pairs
    if dpo.sft_weight:
        loss = loss + dpo.sft_weight * spoken / tokens
    with torch.no_grad():
        told = _figures(answers, dpo, losses, spoken)
    return loss, told


def _figures(
    answers: Answers, dpo: DpoSettings, losses: Float[Tensor, " pairs"], spoken: Float[Tensor, ""]
) -> Float[Tensor, "2 figures"]:
    ratios = answers.policy.detach() - answers.reference
    chosen, rejected = (dpo.beta * total for total in answers.sums(ratios))
    logp = [total.sum() for total in answers.sums(answers.policy.detach())]
    # Of the estimators without the distributions this one is never negative: r - log r - 1, r = ref / policy.
    divergence = torch.expm1(-ratios) + ratios
    sums = torch.stack(
        [
            chosen.sum(),
            rejected.sum(),
            (chosen - rejected).sum(),
            (chosen > rejected).float().sum(),
            *logp,
            divergence.sum(),
            losses.sum(),
            spoken,
        ]
    ).float()
    counts = torch.full_like(sums, answers.pairs)
    counts[FIGURES.index("kl")] = len(ratios)
    counts[FIGURES.index("sft_loss")] = answers.in_chosen.sum()
    return torch.stack([sums, counts])
