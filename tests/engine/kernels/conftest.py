"""A step of attention and what it must give, in float64, from lists of keys and values without pages.

The kernels run on the GPU where there is one; otherwise Triton interprets them on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from llava_next_video.engine.request import Request, Timings
from llava_next_video.engine.sampling_options import SamplingOptions
from llava_next_video.engine.scheduler import Chunk

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PAGE = 4
# Relative to values around 1: half of the last bit of a stored number and of a rounded weight.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.fixture(scope="session", autouse=True)
def _triton() -> None:
    pytest.importorskip("triton", reason="the kernels are written in Triton; install the dev extra")


def request_on(pages: list[int], number: int) -> Request:
    """A request that holds these pages."""
    return Request(
        id=number,
        index=0,
        options=SamplingOptions(),
        media=(),
        ids=[],
        prompt_tokens=0,
        end_ids=frozenset(),
        deadline_s=None,
        salt=b"",
        timings=Timings(arrived_s=0.0),
        pages=pages,
    )


@dataclass
class Story:
    """One request's keys and values so far: tokens x heads x width each, as the network would give them."""

    request: Request
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass
class Play:
    """Requests that compute chunks together; every step is compared with the reference."""

    attention: Any
    heads: int
    key_value_heads: int
    width: int
    dtype: torch.dtype
    window: int | None = None
    halves: bool = False
    stories: list[Story] = field(default_factory=list)
    draw: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def enter(self, pages: Iterable[int]) -> None:
        """A new request on these pages."""
        self.stories.append(Story(request_on(list(pages), len(self.stories))))

    def share(self, number: int, *, like: int, tokens: int) -> None:
        """Let a request begin with tokens that another one has computed, on pages that both hold."""
        story, other = self.stories[number], self.stories[like]
        story.keys, story.values = other.keys[:tokens], other.values[:tokens]

    def chunk(self, number: int, start: int, count: int) -> Chunk:
        """Some tokens of a request."""
        return Chunk(request=self.stories[number].request, start=start, count=count)

    def step(
        self,
        counts: dict[int, int],
        padded: int | None = None,
        run: Callable[[Tensor], Tensor] | None = None,
    ) -> float:
        """So many tokens of each request; gives how far the result is from the reference at most.

        `run` attends instead, given the heads of queries, keys and values side by side.
        """
        chunks = [self.chunk(number, len(self.stories[number].keys), n) for number, n in counts.items()]
        total = sum(counts.values())
        both = self.key_value_heads * 2
        heads = torch.randn(padded or total, self.heads + both, self.width, generator=self.draw)
        if self.halves:  # -3.5 to 3.5, each head with one at the end: 8-bit floats with a scale hold these
            heads = (heads * 2).round().clamp(-7, 7) / 2
            heads[..., 0] = 3.5
        heads = heads.to(self.dtype)
        given = heads.to(DEVICE)
        row = 0
        wanted = []
        for number, count in counts.items():
            story = self.stories[number]
            for at in range(row, row + count):
                story.keys.append(heads[at, self.heads : self.heads + self.key_value_heads].double())
                story.values.append(heads[at, self.heads + self.key_value_heads :].double())
                wanted.append(self._reference(story, heads[at, : self.heads].double()))
            row += count
        self.attention.begin(chunks, padded)
        out = (run or self.attend)(given)
        assert out.isfinite().all()
        return float((out[:total].cpu().double() - torch.stack(wanted)).abs().max())

    def attend(self, given: Tensor) -> Tensor:
        """Attention of the first layer, given the heads of queries, keys and values side by side."""
        return self.attention.attend(0, given[:, : self.heads], given[:, self.heads :])

    def _reference(self, story: Story, query: Tensor) -> Tensor:
        begin = 0 if self.window is None else max(0, len(story.keys) - self.window)
        keys, values = torch.stack(story.keys[begin:]), torch.stack(story.values[begin:])
        group = self.heads // self.key_value_heads
        keys, values = keys.repeat_interleave(group, dim=1), values.repeat_interleave(group, dim=1)
        weights = torch.softmax(torch.einsum("hw,thw->ht", query, keys) * self.width**-0.5, dim=1)
        return torch.einsum("ht,thw->hw", weights, values)


def play(
    *,
    heads: int = 2,
    key_value_heads: int = 2,
    width: int = 64,
    dtype: torch.dtype = torch.float32,
    window: int | None = None,
    pages: int = 64,
    halves: bool = False,
    programs: int | None = 8,
    **options: Any,
) -> Play:
    """An empty stage with one layer, whose kernels read little at once unless `programs` is None."""
    from llava_next_video.engine.attention_cuda import CudaAttention, Few
    from llava_next_video.engine.kernels.launch import Launch

    attention = CudaAttention(
        windows=[window],
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=width,
        pages=pages,
        dtype=dtype,
        share=True,
        device=DEVICE,
        **{
            "page_tokens": PAGE,
            "tokens": 128,
            "requests": 8,
            "context": 32 * PAGE,
            "shared_from": 4 * PAGE,
            **options,
        },
    )
    attention.few = Few(rows=8, tokens=10**6)
    if programs is not None:
        attention.launch = attention.launch_few = Launch(programs=programs, tokens=16, least=16)
    return Play(attention, heads, key_value_heads, width, dtype, window, halves)
