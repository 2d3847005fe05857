"""The packed tokens of a step through the text layers, on whatever device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from llava_next_video.engine.decoder import Attend, Decoder
from llava_next_video.engine.stretch import Stretch
from llava_next_video.engine.transfer import sent


@runtime_checkable
class Attention(Protocol):
    """Keys and values in pages, and attention to them: the part of a step that knows the device."""

    def begin(
        self, chunks: Sequence[Stretch], padded: int | None = None, ropes: Sequence[int] | None = None
    ) -> None:
        """Look at the pages of the next step, which has `padded` rows if a recorded graph computes it.

        `ropes` says for each chunk how its positions are scaled, as a row of `Decoder.rope`.
        """

    def attend(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Write keys and values of the step into their pages, and attend: tokens x heads x width."""


class Forward:
    """Decoder and attention together.

    Args:
        decoder: Computes.
        attention: Attends.
        turning: For a step that has begun (its chunks, and rows of `Decoder.rope`), what attends like
            `attention`, but turns queries and keys itself; None: the decoder turns them.
    """

    def __init__(
        self,
        decoder: Decoder,
        attention: Attention,
        turning: Callable[[Sequence[Stretch], Sequence[int]], Attend] | None = None,
    ) -> None:
        self.decoder, self.attention = decoder, attention
        self._turning = turning

    def __call__(
        self, chunks: Sequence[Stretch], ropes: Sequence[int], embedded: Float[Tensor, "tokens width"]
    ) -> Float[Tensor, "sampling width"]:
        """Hidden states of the last tokens of those chunks after which a token is chosen.

        Args:
            chunks: The step.
            ropes: How the positions of each chunk are scaled, as a row of `Decoder.rope`.
            embedded: What the tokens begin as; it is lost.
        """
        self.attention.begin(chunks, None, ropes)
        ends, row = [], 0
        for chunk in chunks:
            row += chunk.count
            if chunk.samples:
                ends.append(row - 1)
        wanted = None if len(ends) == row else sent(ends, torch.long, self.decoder.device)
        if self._turning is not None:
            turns, attend = None, self._turning(chunks, ropes)
        else:
            turns, attend = turns_for(self.decoder, chunks, ropes), self.attention.attend
        return self.decoder.forward(embedded, turns, attend, wanted)


def turns_for(
    decoder: Decoder, chunks: Sequence[Stretch], ropes: Sequence[int]
) -> Complex[Tensor, "tokens half"]:
    """The turns of the positions of the chunks' tokens, as their requests scale them."""
    at = [place for chunk in chunks for place in range(chunk.start, chunk.start + chunk.count)]
    rows = [rope for chunk, rope in zip(chunks, ropes, strict=True) for _ in range(chunk.count)]
    positions, scalings = sent(at + rows, torch.long, decoder.device).chunk(2)
    return decoder.rope.turns(positions, scalings)
