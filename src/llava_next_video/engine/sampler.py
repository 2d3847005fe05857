"""Logits to the next token of each request."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from llava_next_video.engine.request import Request, TokenLogprob
from llava_next_video.engine.sampling_options import Guide
from llava_next_video.engine.scheduler import Sampled


class Sampler:
    """Chooses tokens; ids that stand for no text are never chosen.

    Args:
        forbidden: Ids that can never be chosen: placeholders, and ids beyond the tokenizer.
        model_end_ids: The model's own end tokens, which `ignore_eos` forbids.
    """

    def __init__(self, *, forbidden: Collection[int], model_end_ids: frozenset[int]) -> None:
        self._forbidden = torch.tensor(sorted(forbidden), dtype=torch.long)
        self._model_end_ids = torch.tensor(sorted(model_end_ids), dtype=torch.long)

    def choose(self, requests: Sequence[Request], logits: Float[Tensor, "rows vocabulary"]) -> list[Sampled]:
        """One token for each request, from the row of logits in the same place."""
        logits.index_fill_(1, self._forbidden, -torch.inf)
        reported = {
            row: torch.log_softmax(logits[row], dim=-1)
            for row, request in enumerate(requests)
            if request.options.logprobs is not None
        }
        errors = [self._adjust(request, logits[row]) for row, request in enumerate(requests)]
        ids = logits.argmax(dim=-1).tolist()
        chosen = []
        for row, request in enumerate(requests):
            if errors[row] is not None:
                chosen.append(Sampled(error=errors[row]))
                continue
            id = self._draw(request, logits[row]) if request.options.temperature > 0 else ids[row]
            chosen.append(Sampled(id=id, logprob=_report(reported.get(row), id, request.options.logprobs)))
        return chosen

    def probabilities(
        self, request: Request, logits: Float[Tensor, " vocabulary"]
    ) -> tuple[Float[Tensor, " kept"], Tensor]:
        """Probabilities after temperature, top_k, top_p and min_p, likeliest first, and their ids.

        Source: transformers, `generation/logits_process.py`, in the order that `generate` applies them.
        """
        options = request.options
        kept = min(options.top_k, len(logits)) if options.top_k else len(logits)
        values, ids = torch.topk(logits / options.temperature, kept)
        probabilities = torch.softmax(values, dim=-1)
        keep = probabilities.cumsum(0) - probabilities < options.top_p
        probabilities = torch.where(keep, probabilities, 0)
        probabilities = torch.where(probabilities < options.min_p * probabilities[0], 0, probabilities)
        return probabilities / probabilities.sum(), ids

    def _adjust(self, request: Request, row: Float[Tensor, " vocabulary"]) -> str | None:
        """Penalties, biases and what may not come yet, in place; gives why no token can be chosen."""
        options, answer = request.options, request.answer
        if options.repetition_penalty != 1:
            said = torch.tensor(sorted(set(request.ids)))
            said = said[said < len(row)]
            values = row[said]
            row[said] = torch.where(
                values < 0, values * options.repetition_penalty, values / options.repetition_penalty
            )
        if (options.presence_penalty or options.frequency_penalty) and answer:
            counts = torch.bincount(torch.tensor(answer), minlength=len(row))
            row -= options.presence_penalty * (counts > 0) + options.frequency_penalty * counts
        for token, bias in options.logit_bias.items():
            row[token] += bias
        if options.ignore_eos:
            row.index_fill_(0, self._model_end_ids, -torch.inf)
        if len(answer) < options.min_new_tokens:
            row[sorted(request.end_ids)] = -torch.inf
        return None if options.guide is None else _guided(options.guide, answer, row)

    def _draw(self, request: Request, row: Float[Tensor, " vocabulary"]) -> int:
        probabilities, ids = self.probabilities(request, row)
        total = probabilities.double().cumsum(0)
        point = torch.rand(1, generator=request.generator, dtype=torch.float64) * total[-1]
        place = int(torch.searchsorted(total, point, right=True))
        return int(ids[min(place, int((probabilities > 0).sum()) - 1)])


def _guided(guide: Guide, answer: Sequence[int], row: Float[Tensor, " vocabulary"]) -> str | None:
    """Forbid what the guide does not allow, in place; what it throws costs this request only."""
    try:
        allowed = guide(answer)
        if allowed is not None:
            row[: len(allowed)].masked_fill_(~allowed[: len(row)], -torch.inf)
            row[len(allowed) :] = -torch.inf
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "the guide allows no token after the answer so far" if row.max() == -torch.inf else None


def _report(logprobs: Tensor | None, chosen: int, top: int | None) -> TokenLogprob | None:
    if logprobs is None or top is None:
        return None
    values, ids = torch.topk(logprobs, top)
    return TokenLogprob(
        id=chosen,
        logprob=float(logprobs[chosen]),
        top=tuple(zip(ids.tolist(), values.tolist(), strict=True)),
    )
