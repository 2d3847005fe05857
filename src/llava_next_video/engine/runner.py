"""One step of the network: the chunks of many requests, packed.

A step can be started before the tokens of the last one are known here: they stay on the device, and the next
step takes them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from llava_next_video.engine.forward import Forward, turns_for
from llava_next_video.engine.graphs import DecodeGraphs, padded_size
from llava_next_video.engine.request import UNKNOWN
from llava_next_video.engine.sampler import Sampler
from llava_next_video.engine.sampler_batched import BatchedSampler
from llava_next_video.engine.scheduler import Chunk, Sampled
from llava_next_video.engine.transfer import fetched, sent
from llava_next_video.engine.words import Words

Leading = Callable[[Sequence[Chunk], Tensor], AbstractContextManager[None]]


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
    """Words, layers and samplers together.

    Args:
        words: Embeds tokens, and gives logits.
        forward: Computes the layers between.
        sampler: Chooses tokens one by one.
        batched: Chooses tokens on the device.
        graphs: Replays steps that only generate.
        whole: Computes such steps in one call: embeddings, turns and chunks to logits.
        leading: While a step (its chunks, and what their tokens begin as) is in the layers, those compute it
            who have other shares of them; None: nobody has.
    """

    def __init__(
        self,
        words: Words,
        forward: Forward,
        sampler: Sampler,
        batched: BatchedSampler,
        *,
        graphs: DecodeGraphs | None = None,
        whole: Callable[[Tensor, Tensor, Sequence[Chunk]], Tensor] | None = None,
        leading: Leading | None = None,
    ) -> None:
        self.words = words
        self.forward = forward
        self.decoder, self.attention = forward.decoder, forward.attention
        self._leading = leading
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
        ropes = self.decoder.rope.rows([chunk.request.rope for chunk in chunks])
        if self.graphs is not None and all(map(_generates, chunks)):
            size = padded_size(len(chunks), self.graphs.sizes)
            self.attention.begin(chunks, size, ropes)
            return self.graphs.run(self._ids(chunks, []), size)
        if self._whole is not None and all(map(_generates, chunks)):
            return self._whole(self._embedded(chunks), turns_for(self.decoder, chunks, ropes), chunks)
        embedded = self._embedded(chunks)
        with nullcontext() if self._leading is None else self._leading(chunks, embedded):
            hidden = self.forward(chunks, ropes, embedded)
        return self.words.logits(hidden) if len(hidden) else hidden

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
        hidden = self.words.embed(self._ids(chunks, features))
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


def _generates(chunk: Chunk) -> bool:
    return chunk.count == 1 and chunk.samples and chunk.start >= chunk.request.prompt_tokens


def _spread(chosen: Sequence[Sampled], places: Sequence[bool]) -> list[Sampled | None]:
    """The choices in the places of the chunks that made them."""
    each = iter(chosen)
    return [next(each) if place else None for place in places]
