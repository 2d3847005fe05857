"""Steps that only generate, recorded once for each number of requests and replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

_SMALL = (1, 2, 4, 8)
_STRIDE = 8
_LARGE = 64
_LARGE_STRIDE = 32

Compute = Callable[[Tensor], Tensor]
"""Ids of one token for each request of the step, to logits, without touching the host."""

Replay = Callable[[], Tensor]
"""Computes again, from what now stands where it was recorded; what it gave before is overwritten."""


@runtime_checkable
class Planned(Protocol):
    """Attention whose plan lies in buffers that never move.

    Attributes:
        graph_key: Steps with equal keys launch the same kernels; None: the step cannot be recorded.
    """

    @property
    def graph_key(self) -> Hashable | None:
        """Of the step that began last."""


def graph_sizes(most: int) -> tuple[int, ...]:
    """How many rows graphs have, up to at least `most`: dense where a row more costs most.

    >>> graph_sizes(1), graph_sizes(20)
    ((1,), (1, 2, 4, 8, 16, 24))
    >>> graph_sizes(100)[-4:]
    (56, 64, 96, 128)
    """
    sizes = [*_SMALL, *range(16, _LARGE, _STRIDE), *range(_LARGE, most + _LARGE_STRIDE, _LARGE_STRIDE)]
    enough = next(index for index, size in enumerate(sizes) if size >= most)
    return tuple(sizes[: enough + 1])


def padded_size(rows: int, sizes: Sequence[int]) -> int:
    """The smallest graph that has room for so many rows.

    >>> padded_size(9, (1, 2, 4, 8, 16))
    16
    """
    return next(size for size in sizes if size >= rows)


class DecodeGraphs:
    """One recorded graph for each kind of step, made when the first of its kind comes.

    Args:
        compute: What to record.
        attention: Its plan is in place before each run.
        most: Rows of a step at most.
        device: Where the rows are.
        record: Makes a graph of a computation.
    """

    def __init__(
        self,
        compute: Compute,
        attention: Planned,
        *,
        most: int,
        device: torch.device,
        record: Callable[[Callable[[], Tensor]], Replay] | None = None,
    ) -> None:
        self.sizes = graph_sizes(most)
        self.compute = compute
        self._attention = attention
        self._ids = torch.zeros(self.sizes[-1], dtype=torch.long, device=device)
        self._record = record or Recorder()
        self.recorded: dict[Hashable, Replay] = {}

    def run(self, ids: Int[Tensor, " rows"], size: int) -> Float[Tensor, "rows vocabulary"]:
        """Logits of the rows of the step that has begun, padded to `size`; the next run overwrites them."""
        rows = len(ids)
        self._ids[:rows].copy_(ids)
        self._ids[rows:size].zero_()
        padded, key = self._ids[:size], self._attention.graph_key
        if key is None:
            return self.compute(padded)[:rows]
        if key not in self.recorded:
            self.recorded[key] = self._record(lambda: self.compute(padded))
        return self.recorded[key]()[:rows]


class Recorder:
    """Records CUDA graphs that share one pool of memory.

    Recording computes once before, which writes the same keys and values to the same places as the replay.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Callable[[], Tensor]) -> Replay:
        """What replays the computation."""
        # Once outside: kernels are compiled and libraries take their workspace, which recording forbids.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out = compute()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay
