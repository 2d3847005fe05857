"""Preference pairs ready to be batched: one prompt, one clip, two answers behind them.

Both answers stand in one sequence as branches behind the prompt that they share, so the clip is decoded,
encoded and read once for the two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from llava_next_video.data.collate import Collator
from llava_next_video.data.dataset import Dropped, Example, Rules, expanded, pixels_of
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import IGNORED, Encoded, TextEncoder, expanded_length, shortened
from llava_next_video.data.measure import Layouts, expected_tokens, visual_tokens
from llava_next_video.data.packing import pack
from llava_next_video.data.record import Preference, Record, Sample
from llava_next_video.errors import CapacityError, DataError, MediaError
from llava_next_video.processing import LlavaNextVideoProcessor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A packed sequence: branch 1 is the chosen answer, branch 2 the rejected one; `number` names it."""

    example: Example
    number: int


class Pairs(Dataset["Pair | Dropped"]):
    """One item per pair; `lengths` has the expected tokens of each, for batches of like length."""

    def __init__(
        self,
        preferences: Sequence[Preference],
        *,
        encoder: TextEncoder,
        processor: LlavaNextVideoProcessor,
        layouts: Layouts,
        rules: Rules,
        decoder: Decoder,
    ) -> None:
        self.preferences = preferences
        self.encoder = encoder
        self.processor = processor
        self.layouts = layouts
        self.rules = rules
        self.decoder = decoder
        self.lengths = [
            expanded_length(self._packed(*self._answers(one), one), self._expected(one))
            for one in preferences
        ]

    def __len__(self) -> int:
        return len(self.preferences)

    @property
    def names(self) -> list[list[str]]:
        """What each item is called, for the record of what a run has seen."""
        return [[one.id, one.chosen.text, one.rejected.text] for one in self.preferences]

    def __getitem__(self, index: int) -> Pair | Dropped:
        """The pair of that number, or why there is none.

        Raises:
            MediaError: A medium does not open, and the rules say stop.
            CapacityError: An answer ends beyond the context, and the rules say stop.
        """
        one = self.preferences[index]
        try:
            decoded = [self.decoder.read(medium, self.rules.sampling) for medium in one.media]
        except MediaError as error:
            if self.rules.bad_media == "stop":
                raise MediaError(f"{one.place}: {error}") from error
            return Dropped(ids=(one.id,), reason=str(error))
        tokens = [visual_tokens(medium, self.layouts) for medium in decoded]
        fitting = [self._fitted(answer, tokens) for answer in self._answers(one)]
        chosen, rejected = fitting
        if chosen is None or rejected is None or chosen.ids == rejected.ids:
            return self._refuse(one, tokens)
        pixels = [
            pixels_of(self.processor, medium, count) for medium, count in zip(decoded, tokens, strict=True)
        ]
        return Pair(example=expanded(self._packed(chosen, rejected, one), pixels, self.encoder), number=index)

    def _answers(self, one: Preference) -> tuple[Encoded, Encoded]:
        """The prompt with either answer, of which alone something is learned."""
        chosen, rejected = (
            _last_answer(self.encoder.encode(Record(id=one.id, turns=(*one.turns, answer), place=one.place)))
            for answer in (one.chosen, one.rejected)
        )
        return chosen, rejected

    def _packed(self, chosen: Encoded, rejected: Encoded, one: Preference) -> Encoded:
        front = fork(chosen, rejected)
        if any(token in self.encoder.placeholders for token in chosen.ids[max(front, 0) :]):
            raise DataError(
                f"{one.place}: the answers follow the medium with no word between; use a chat template that "
                "names the assistant (data.template)"
            )
        return pack([chosen, rejected], front)

    def _expected(self, one: Preference) -> list[int]:
        expected = []
        for medium in one.media:
            try:
                expected.append(expected_tokens(medium, self.rules.sampling, self.layouts))
            except MediaError:
                expected.append(1)
        return expected

    def _fitted(self, answer: Encoded, tokens: Sequence[int]) -> Encoded | None:
        excess = expanded_length(answer, tokens) - self.rules.context
        if excess <= 0:
            return answer
        if self.rules.too_long != "shorten":
            return None
        return shortened(answer, excess, self.encoder.placeholders)

    def _refuse(self, one: Preference, tokens: Sequence[int]) -> Dropped:
        longest = max(expanded_length(answer, tokens) for answer in self._answers(one))
        reason = (
            f"{longest} tokens with the longer answer ({sum(tokens)} visual), and the context holds "
            f"{self.rules.context}; use fewer frames, or data.too_long 'shorten' or 'drop'"
        )
        if self.rules.too_long == "stop":
            raise CapacityError(f"{one.place}: {reason}")
        return Dropped(ids=(one.id,), reason=reason)


class PairCollator:
    """Makes batches of pairs: what `Collator` gives, with `branches` and the `pairs`' numbers beside it."""

    def __init__(self, padding: int) -> None:
        self._collate = Collator(padding)

    def __call__(self, items: Sequence[Pair | Dropped]) -> dict[str, Any]:
        """One batch, a pair a row."""
        pairs = [item for item in items if isinstance(item, Pair)]
        batch = self._collate([item.example if isinstance(item, Pair) else item for item in items])
        length = batch["input_ids"].shape[1]
        rows = [
            F.pad(pair.example.branches, (0, length - len(pair.example.branches)), value=-1) for pair in pairs
        ]
        return batch | {
            "samples": len(pairs),
            "branches": torch.stack(rows) if rows else torch.full((1, length), -1),
            "pairs": torch.tensor([pair.number for pair in pairs], dtype=torch.long),
        }


def wanted_pairs(samples: Sequence[Sample], bad: list[DataError] | None) -> list[Preference]:
    """The preferences among the samples, all of them if nothing is wrong.

    What cannot be used goes into `bad`, where it is given.

    Raises:
        DataError: A conversation, or a pair of equal answers, and no `bad`; or nothing is left.
    """
    wanted: list[Preference] = []
    for sample in samples:
        problem = _problem(sample)
        if problem is not None:
            if bad is None:
                raise problem
            bad.append(problem)
        elif isinstance(sample, Preference):
            wanted.append(sample)
    if not wanted:
        raise DataError("there are no pairs to learn from; see data.sources and their take")
    return wanted


def _problem(sample: Sample) -> DataError | None:
    if isinstance(sample, Record):
        return DataError(
            f"{sample.place}: a conversation; this stage learns from a chosen and a rejected answer"
        )
    if sample.chosen.text.strip() == sample.rejected.text.strip():
        return DataError(
            f"{sample.place}: chosen and rejected are the same answer, so there is nothing to prefer; take "
            "the row out"
        )
    return None


def fork(chosen: Encoded, rejected: Encoded) -> int:
    """How many ids the two answers share as their front.

    The last id before they part opens each branch, so that every answer token is predicted inside its own.

    >>> one = Encoded(ids=(9, 5, 1), labels=(-100, -100, 1), branches=(0, 0, 0), media=())
    >>> two = Encoded(ids=(9, 5, 2), labels=(-100, -100, 2), branches=(0, 0, 0), media=())
    >>> fork(one, two)
    1
    """
    same = 0
    for first, second, *learned in zip(
        chosen.ids, rejected.ids, chosen.labels, rejected.labels, strict=False
    ):
        if first != second or any(label != IGNORED for label in learned):
            break
        same += 1
    return same - 1


def _last_answer(encoded: Encoded) -> Encoded:
    """Of all the assistant said, only the last turn is learned."""
    start = len(encoded.labels)
    while start and encoded.labels[start - 1] == IGNORED:
        start -= 1
    while start and encoded.labels[start - 1] != IGNORED:
        start -= 1
    return replace(encoded, labels=(IGNORED,) * start + encoded.labels[start:])
