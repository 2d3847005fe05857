"""Steps without overhead: a GPU records each kind of step once, then replays it as one launch.

Knows nothing of networks or losses. Small networks are bound by the launching of kernels, not by arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

Told = tuple[list[Tensor], dict[str, Tensor]]
"""Losses, and what else to print; one number a seed."""
WARM = 3
"""Runs of each kind before it is recorded: things are compiled, tables made."""


class Recorded:
    """A step of several kinds, recorded on a GPU and run as it is elsewhere.

    `step(kind)` may touch only tensors that stay where they are (weights, moments, pools, scalars on the
    device): a replay reads what stands in them then. What it returns is overwritten by the next replay.
    """

    def __init__(self, step: Callable[[Hashable], Told], device: torch.device) -> None:
        self.step, self.device = step, device
        self.graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Told]] = {}

    def prepare(self, kinds: Iterable[Hashable]) -> None:
        """Record these kinds; a kind that cannot be recorded stays as it is, and says why."""
        if self.device.type != "cuda":
            return
        begun, stream = time.monotonic(), torch.cuda.Stream()
        memory = torch.cuda.graph_pool_handle()
        for kind in kinds:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM):
                    self.step(kind)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=memory, stream=stream, capture_error_mode="thread_local"):
                    told = self.step(kind)
            except RuntimeError as error:
                print(f"{kind} is not recorded: {str(error).splitlines()[0]}", flush=True)
            else:
                self.graphs[kind] = graph, told
        torch.cuda.synchronize()
        print(f"recorded {len(self.graphs)} kinds in {time.monotonic() - begun:.0f}s", flush=True)

    def __call__(self, kind: Hashable) -> Told:
        """Take one step of a kind."""
        if kind not in self.graphs:
            return self.step(kind)
        graph, told = self.graphs[kind]
        graph.replay()
        return told
