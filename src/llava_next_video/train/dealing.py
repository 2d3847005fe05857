"""Sequences as a batch plan asks for them, fillers made void.

Processes step together, so one that has nothing left to learn is given a sequence of another process once
more. It passes through the network like any other (collectives and unused parameters stay as they are), and
counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from llava_next_video.data.encode import IGNORED
from llava_next_video.train.lesson import Sequences


class Dealt(Dataset[tuple[Any, bool]]):
    """The sequences of a lesson, each with whether it only fills a gap: that is asked for as `~index`."""

    def __init__(self, sequences: Sequences) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, place: int) -> tuple[Any, bool]:
        return self.sequences[place if place >= 0 else ~place], place < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DealtCollator:
    """Batches of what `Dealt` gives."""

    collate: Callable[[Sequence[Any]], dict[str, Any]]

    def __call__(self, items: Sequence[tuple[Any, bool]]) -> dict[str, Any]:
        """One batch, void if it fills a gap."""
        batch = self.collate([item for item, _ in items])
        return void(batch) if any(fills for _, fills in items) else batch


def void(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with nothing to learn in it: no labels, no pairs, no samples that would be counted twice.

    >>> void({"labels": torch.tensor([[1, 2]]), "samples": 1, "dropped": ["a"]})
    {'labels': tensor([[-100, -100]]), 'samples': 0, 'dropped': []}
    """
    emptied = {"labels": torch.full_like(batch["labels"], IGNORED), "samples": 0, "dropped": []}
    return batch | emptied | ({"pairs": batch["pairs"][:0]} if "pairs" in batch else {})
