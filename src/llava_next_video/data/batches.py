"""Which samples go into which batch.

Samples of like length share a batch, so that little is padding; which batches there are depends on the seed,
the epoch and the lengths alone. The plan is made for whole optimizer steps and then cut into micro-batches:
eight accumulated batches of one hold the same samples as one batch of eight.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """Samples in a micro-batch, micro-batches a process adds up before a step, and processes."""

    size: int
    accumulate: int = 1
    processes: int = 1

    @property
    def step(self) -> int:
        """Samples in an optimizer step."""
        return self.size * self.accumulate * self.processes


def plan_batches(lengths: Sequence[int], shape: BatchShape, *, seed: int, epoch: int) -> list[list[int]]:
    """The micro-batches of an epoch; each sample is in exactly one.

    Samples are shuffled, sorted by length within pools of 16 steps (256 samples at least), cut into steps,
    and the steps shuffled. The last step of an epoch may be smaller, and then fills fewer micro-batches.

    >>> plan_batches([5, 1, 5, 1], BatchShape(size=2), seed=0, epoch=0)
    [[0, 2], [3, 1]]
    """
    chance = random.Random(f"{seed} {epoch}")
    order = list(range(len(lengths)))
    chance.shuffle(order)
    pool = shape.step * max(16, -(-256 // shape.step))
    steps: list[list[int]] = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda index: lengths[index], reverse=True)
        steps += [near[first : first + shape.step] for first in range(0, len(near), shape.step)]
    short = [step for step in steps if len(step) < shape.step]
    whole = [step for step in steps if len(step) == shape.step]
    chance.shuffle(whole)
    return [
        step[first : first + shape.size]
        for step in [*whole, *short]
        for first in range(0, len(step), shape.size)
    ]


def dealt(batches: Sequence[list[int]], *, processes: int, process: int) -> list[list[int]]:
    """The micro-batches of one process; every process gets as many, since they step together.

    They go round the processes in turn. Where they do not come out even, the last one fills the gap: its
    indices are then `~index`, and nothing of it may count, as another process learns from it.

    >>> dealt([[0, 1], [2, 3], [4]], processes=2, process=1)
    [[2, 3], [-5]]
    """
    mine = list(batches[process::processes])
    rounds = -(-len(batches) // processes)
    return mine + [[~index for index in batches[-1]]] * (rounds - len(mine))


class BatchPlan(Sampler[list[int]]):
    """A batch sampler over what one process gets of `plan_batches`; `set_epoch` chooses the epoch."""

    def __init__(self, lengths: Sequence[int], shape: BatchShape, *, seed: int, process: int = 0) -> None:
        self.lengths = lengths
        self.shape = shape
        self.seed = seed
        self.process = process
        self.epoch = 0

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.lengths) // self.shape.step)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches = plan_batches(self.lengths, self.shape, seed=self.seed, epoch=self.epoch)
        return iter(dealt(batches, processes=self.shape.processes, process=self.process))

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.shape.step)
        return whole * self.shape.accumulate + -(-rest // (self.shape.size * self.shape.processes))


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of a run's tokens that is padding.

    >>> padding_share([4, 2], [[0, 1]])
    0.25
    """
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return 1 - sum(lengths[index] for batch in batches for index in batch) / padded
