"""One step of the network: the chunks of many requests, packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from llava_next_video.engine.decoder import Decoder
from llava_next_video.engine.sampler import Sampler
from llava_next_video.engine.scheduler import Chunk, Sampled


@runtime_checkable
class Attention(Protocol):
    """Keys and values in pages, and attention to them: the part of a step that knows the device."""

    def begin(self, chunks: Sequence[Chunk]) -> None:
        """Look at the pages of the next step."""

    def attend(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Write keys and values of the step into their pages, and attend: tokens x heads x width."""


class Runner:
    """Decoder, attention and sampler together."""

    def __init__(self, decoder: Decoder, attention: Attention, sampler: Sampler) -> None:
        self.decoder = decoder
        self.attention = attention
        self.sampler = sampler

    def run(self, chunks: Sequence[Chunk]) -> list[Sampled | None]:
        """Computes the chunks; gives the chosen token where a chunk reaches the end of its request."""
        self.attention.begin(chunks)
        positions = torch.cat([torch.arange(chunk.start, chunk.start + chunk.count) for chunk in chunks])
        rows = self.decoder.rope.rows([chunk.request.rope for chunk in chunks])
        ropes = torch.tensor(rows).repeat_interleave(torch.tensor([chunk.count for chunk in chunks]))
        ends, row = [], 0
        for chunk in chunks:
            row += chunk.count
            if chunk.samples:
                ends.append(row - 1)
        wanted = None if len(ends) == row else torch.tensor(ends, dtype=torch.long)
        embedded = self._embedded(chunks)
        hidden = self.decoder.forward(embedded, positions, ropes, self.attention.attend, wanted)
        if not ends:
            return [None] * len(chunks)
        requests = [chunk.request for chunk in chunks if chunk.samples]
        chosen = iter(self.sampler.choose(requests, self.decoder.logits(hidden)))
        return [next(chosen) if chunk.samples else None for chunk in chunks]

    def _embedded(self, chunks: Sequence[Chunk]) -> Tensor:
        """Embeddings of the chunks' tokens, with visual features in the places of their placeholders."""
        ids = [id for chunk in chunks for id in chunk.request.ids[chunk.start : chunk.start + chunk.count]]
        features: list[tuple[int, Tensor]] = []
        row = 0
        for chunk in chunks:
            end = chunk.start + chunk.count
            for medium in chunk.request.media:
                first, stop = max(chunk.start, medium.start), min(end, medium.start + medium.tokens)
                if first < stop:
                    place = row + first - chunk.start
                    ids[place : place + stop - first] = [0] * (
                        stop - first
                    )  # a placeholder may have no embedding
                    seen = chunk.request.features[medium.key][first - medium.start : stop - medium.start]
                    features.append((place, seen))
            row += chunk.count
        hidden = self.decoder.embed(torch.tensor(ids))
        for place, seen in features:
            hidden[place : place + len(seen)] = seen
        return hidden
