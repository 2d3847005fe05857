"""Sequences of different lengths to one batch, padded on the right.

A batch with packed sequences has a four-dimensional mask and explicit positions: each branch sees the shared
front and itself, and its positions go on from the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from llava_next_video.data.dataset import Dropped, Example
from llava_next_video.data.encode import IGNORED


class Collator:
    """Makes batches of what `Samples` gives.

    The batch is a dictionary for `forward`: input_ids, attention_mask, labels, position_ids (packed
    only), pixel_values with image_sizes, pixel_values_videos; beside them `samples`, their number (a packed
    sequence holds several), and `dropped`, those left out.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, items: Sequence[Example | Dropped]) -> dict[str, Any]:
        """One batch; where all its samples were dropped, it has one padding id and no labels."""
        examples = [item for item in items if isinstance(item, Example)]
        batch: dict[str, Any] = {
            "samples": sum(max(1, int(example.branches.max())) for example in examples),
            "dropped": [item for item in items if isinstance(item, Dropped)],
        }
        if not examples:
            nothing = torch.full((1, 1), self.padding)
            return batch | {
                "input_ids": nothing,
                "attention_mask": torch.ones_like(nothing),
                "labels": torch.full((1, 1), IGNORED),
            }
        length = max(len(example.ids) for example in examples)
        batch["input_ids"] = torch.stack([_padded(example.ids, length, self.padding) for example in examples])
        batch["labels"] = torch.stack([_padded(example.labels, length, IGNORED) for example in examples])
        branches = torch.stack([_padded(example.branches, length, -1) for example in examples])
        if bool((branches > 0).any()):
            batch["attention_mask"] = branch_mask(branches)
            batch["position_ids"] = branch_positions(branches)
        else:
            batch["attention_mask"] = (branches == 0).long()
        return batch | _pixels(examples)


def _padded(values: Int[Tensor, " length"], length: int, filling: int) -> Int[Tensor, " padded"]:
    return F.pad(values, (0, length - len(values)), value=filling)


def branch_mask(branches: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch 1 length length"]:
    """Which key each query sees: earlier ones of the shared front (0) and of its own branch.

    Padding (-1) sees earlier padding, so that no row is empty.

    >>> branch_mask(torch.tensor([[0, 1, 2]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
    """
    query, key = branches[:, :, None], branches[:, None, :]
    seen = (key == query) | ((key == 0) & (query > 0))
    return (seen & torch.ones(branches.shape[1], branches.shape[1], dtype=torch.bool).tril())[:, None]


def branch_positions(branches: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """Positions as if each branch stood alone behind the shared front.

    >>> branch_positions(torch.tensor([[0, 0, 1, 1, 2]])).tolist()
    [[0, 1, 2, 3, 2]]
    """
    place = torch.arange(branches.shape[1]).expand_as(branches)
    first = torch.ones_like(branches, dtype=torch.bool)
    first[:, 1:] = branches[:, 1:] != branches[:, :-1]
    start = torch.where(first, place, 0).cummax(dim=1).values
    front = (branches == 0).sum(dim=1, keepdim=True)
    return torch.where(branches > 0, place - start + front, place - start)


def _pixels(examples: Sequence[Example]) -> dict[str, Any]:
    clips = [medium.values for example in examples for medium in example.pixels if medium.size is None]
    pictures = [medium for example in examples for medium in example.pixels if medium.size is not None]
    found: dict[str, Any] = {}
    if clips:
        alike = all(clip.shape == clips[0].shape for clip in clips)
        found["pixel_values_videos"] = torch.stack(clips) if alike else clips
    if pictures:
        tiles = max(len(picture.values) for picture in pictures)
        found["pixel_values"] = torch.stack(
            [F.pad(picture.values, (0, 0) * 3 + (0, tiles - len(picture.values))) for picture in pictures]
        )
        found["image_sizes"] = torch.tensor([list(picture.size or ()) for picture in pictures])
    return found
