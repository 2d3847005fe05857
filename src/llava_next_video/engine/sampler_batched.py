"""Logits to tokens for all rows at once, where the logits are.

For requests whose options are `plain`; the draws are those of `Sampler`, so that a seed gives the same answer
on either.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from llava_next_video.engine.request import Request
from llava_next_video.engine.transfer import sent


class BatchedSampler:
    """Chooses tokens without knowing them: they stay on the device.

    Args:
        forbidden: Ids that can never be chosen.
        model_end_ids: The model's own end tokens, which `ignore_eos` forbids.
        device: Where the logits are.
    """

    def __init__(
        self, *, forbidden: Collection[int], model_end_ids: frozenset[int], device: torch.device
    ) -> None:
        self._device = device
        self._never = torch.tensor(sorted(forbidden), dtype=torch.long, device=device)
        ends = sorted(set(forbidden) | model_end_ids)
        self._never_nor_ends = torch.tensor(ends, dtype=torch.long, device=device)

    def choose(
        self, requests: Sequence[Request], logits: Float[Tensor, "rows vocabulary"]
    ) -> Int[Tensor, " rows"]:
        """One token for each request; the logits are changed."""
        endless = [request.options.ignore_eos for request in requests]
        if all(endless):
            logits.index_fill_(1, self._never_nor_ends, -torch.inf)
        else:
            logits.index_fill_(1, self._never, -torch.inf)
            if any(endless):
                rows = sent([row for row, one in enumerate(endless) if one], torch.long, self._device)
                logits[rows[:, None], self._never_nor_ends] = -torch.inf
        likeliest = logits.argmax(dim=-1)
        if all(request.options.temperature == 0 for request in requests):
            return likeliest
        return self._drawn(requests, logits, likeliest)

    def _drawn(self, requests: Sequence[Request], logits: Tensor, likeliest: Tensor) -> Tensor:
        vocabulary = logits.shape[1]
        wishes = [
            [
                request.options.temperature,
                float(request.options.top_k or vocabulary),
                request.options.top_p,
                request.options.min_p,
                _point(request),
            ]
            for request in requests
        ]
        columns = sent(wishes, torch.float64, self._device).unbind(dim=1)
        temperature, top_k, top_p, min_p, point = (column[:, None] for column in columns)
        greedy = temperature == 0
        most = max(int(wish[1]) for wish in wishes)
        values, ids = torch.topk(logits / torch.where(greedy, 1, temperature).float(), min(most, vocabulary))
        ranks = torch.arange(values.shape[1], device=self._device)
        values = torch.where(ranks < top_k, values, -torch.inf)
        probabilities = torch.softmax(values, dim=-1)
        probabilities = torch.where(probabilities.cumsum(1) - probabilities < top_p, probabilities, 0)
        probabilities = torch.where(probabilities < min_p * probabilities[:, :1], 0, probabilities)
        total = (probabilities / probabilities.sum(dim=1, keepdim=True)).double().cumsum(1)
        place = torch.searchsorted(total, point * total[:, -1:], right=True)
        last = (probabilities > 0).sum(dim=1, keepdim=True) - 1
        drawn = ids.gather(1, torch.minimum(place, last))[:, 0]
        return torch.where(greedy[:, 0], likeliest, drawn)


def _point(request: Request) -> float:
    """Where between 0 and 1 the draw of a request falls; its generator moves on by one."""
    if request.generator is None:
        return 0.0
    return float(torch.rand(1, generator=request.generator, dtype=torch.float64))
