"""One step of the network: the chunks of many requests, packed.

A step can be started before the tokens of the last one are known here: they stay on the device, and the next
step takes them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex
from torch import Tensor

from llava_next_video.engine.decoder import Attend, Decoder
from llava_next_video.engine.graphs import DecodeGraphs, padded_size
from llava_next_video.engine.request import UNKNOWN
from llava_next_video.engine.sampler import Sampler
from llava_next_video.engine.sampler_batched import BatchedSampler
from llava_next_video.engine.scheduler import Chunk, Sampled
from llava_next_video.engine.transfer import fetched, sent


@runtime_checkable
class Attention(Protocol):
    """Keys and values in pages, and attention to them: the part of a step that knows the device."""

    def begin(
        self, chunks: Sequence[Chunk], padded: int | None = None, ropes: Sequence[int] | None = None
    ) -> None:
        """Look at the pages of the next step, which has `padded` rows if a recorded graph computes it.

        `ropes` says for each chunk how its positions are scaled, as a row of `Decoder.rope`.
        """

    def attend(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Write keys and values of the step into their pages, and attend: tokens x heads x width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that was started.

    Attributes:
        chunks: What it computes.
        results: Waits for it; gives the chosen token where a chunk reached the end of its request.
    """

    chunks: Sequence[Chunk]
    results: Callable[[], list[Sampled | None]]


class Runner:
    """Decoder, attention and samplers together.

    Args:
        decoder: Computes.
        attention: Attends.
        sampler: Chooses tokens one by one.
        batched: Chooses tokens on the device.
        turning: For a step that has begun (its chunks, and rows of `Decoder.rope`), what attends like
            `attention`, but turns queries and keys itself; None: the decoder turns them.
        graphs: Replays steps that only generate.
        whole: Computes such steps in one call: embeddings, turns and chunks to logits.
    """

    def __init__(
        self,
        decoder: Decoder,
        attention: Attention,
        sampler: Sampler,
        batched: BatchedSampler,
        *,
        turning: Callable[[Sequence[Chunk], Sequence[int]], Attend] | None = None,
        graphs: DecodeGraphs | None = None,
        whole: Callable[[Tensor, Tensor, Sequence[Chunk]], Tensor] | None = None,
    ) -> None:
        self.decoder = decoder
        self.attention = attention
        self._turning = turning
        self._whole = whole
        self.sampler = sampler
        self.batched = batched
        self.graphs = graphs
        self._chosen: Tensor | None = None
        self._row_of: dict[tuple[int, int], int] = {}

    def start(self, chunks: Sequence[Chunk], *, ahead: bool) -> Step:
        """Begin to compute the chunks.

        Args:
            chunks: What to compute.
            ahead: Come back before it is computed; the options of all requests must be `plain`.
        """
        requests = [chunk.request for chunk in chunks if chunk.samples]
        logits = self._logits(chunks)
        if ahead and requests:
            self._chosen = self.batched.choose(requests, logits)
            self._row_of = {request.id_and_index: row for row, request in enumerate(requests)}
            ids = fetched(self._chosen)
            places = [chunk.samples for chunk in chunks]
            return Step(chunks=chunks, results=lambda: _spread([Sampled(id=id) for id in ids()], places))
        chosen = self.sampler.choose(requests, logits.cpu()) if requests else []
        found = _spread(chosen, [chunk.samples for chunk in chunks])
        return Step(chunks=chunks, results=lambda: found)

    def _logits(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits of the chunks that reach the end of their requests."""
        device = self.decoder.device
        ropes = self.decoder.rope.rows([chunk.request.rope for chunk in chunks])
        if self.graphs is not None and all(map(_generates, chunks)):
            size = padded_size(len(chunks), self.graphs.sizes)
            self.attention.begin(chunks, size, ropes)
            return self.graphs.run(self._ids(chunks, []), size)
        if self._whole is not None and all(map(_generates, chunks)):
            return self._whole(self._embedded(chunks), turns_for(self.decoder, chunks, ropes), chunks)
        self.attention.begin(chunks, None, ropes)
        ends, row = [], 0
        for chunk in chunks:
            row += chunk.count
            if chunk.samples:
                ends.append(row - 1)
        wanted = None if len(ends) == row else sent(ends, torch.long, device)
        embedded = self._embedded(chunks)
        if self._turning is not None:
            turns, attend = None, self._turning(chunks, ropes)
        else:
            turns, attend = turns_for(self.decoder, chunks, ropes), self.attention.attend
        hidden = self.decoder.forward(embedded, turns, attend, wanted)
        return self.decoder.logits(hidden) if ends else hidden

    def _embedded(self, chunks: Sequence[Chunk]) -> Tensor:
        """Embeddings of the chunks' tokens, with visual features in the places of their placeholders."""
        features: list[tuple[int, Tensor]] = []
        row = 0
        for chunk in chunks:
            end = chunk.start + chunk.count
            for medium in chunk.request.media:
                first, stop = max(chunk.start, medium.start), min(end, medium.start + medium.tokens)
                if first < stop:
                    seen = chunk.request.features[medium.key][first - medium.start : stop - medium.start]
                    features.append((row + first - chunk.start, seen))
            row += chunk.count
        hidden = self.decoder.embed(self._ids(chunks, features))
        for place, seen in features:
            hidden[place : place + len(seen)] = seen
        return hidden

    def _ids(self, chunks: Sequence[Chunk], features: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Ids of the chunks' tokens, those that are not known here from where the last step left them."""
        ids = [id for chunk in chunks for id in chunk.request.ids[chunk.start : chunk.start + chunk.count]]
        for place, seen in features:
            ids[place : place + len(seen)] = [0] * len(seen)  # a placeholder may have no embedding
        if self._chosen is None or UNKNOWN not in ids:
            return sent(ids, torch.long, self.decoder.device)
        if ids == [UNKNOWN] * len(self._row_of) and self._same_rows(chunks):
            return self._chosen
        row = 0
        for chunk in chunks:
            row += chunk.count
            if ids[row - 1] == UNKNOWN:
                ids[row - 1] = -1 - self._row_of[chunk.request.id_and_index]
        mixed = sent(ids, torch.long, self.decoder.device)
        left = self._chosen.index_select(0, (-1 - mixed).clamp_min_(0))
        return torch.where(mixed < 0, left, mixed)

    def _same_rows(self, chunks: Sequence[Chunk]) -> bool:
        """Whether the chunks continue the requests of the last step, in their order."""
        return [chunk.request.id_and_index for chunk in chunks] == list(self._row_of)


def turns_for(
    decoder: Decoder, chunks: Sequence[Chunk], ropes: Sequence[int]
) -> Complex[Tensor, "tokens half"]:
    """The turns of the positions of the chunks' tokens, as their requests scale them."""
    at = [place for chunk in chunks for place in range(chunk.start, chunk.start + chunk.count)]
    rows = [rope for chunk, rope in zip(chunks, ropes, strict=True) for _ in range(chunk.count)]
    positions, scalings = sent(at + rows, torch.long, decoder.device).chunk(2)
    return decoder.rope.turns(positions, scalings)


def _generates(chunk: Chunk) -> bool:
    return chunk.count == 1 and chunk.samples and chunk.start >= chunk.request.prompt_tokens


def _spread(chosen: Sequence[Sampled], places: Sequence[bool]) -> list[Sampled | None]:
    """The choices in the places of the chunks that made them."""
    each = iter(chosen)
    return [next(each) if place else None for place in places]
