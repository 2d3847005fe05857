"""What a stage gives to the loop: sequences, how they are batched, and what is made smaller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from llava_next_video.data.collate import Collator
from llava_next_video.data.dataset import Rules, Samples
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import TextEncoder
from llava_next_video.data.record import Preference, Record, Sample, bare
from llava_next_video.errors import DataError
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.objectives import Objective, imitate, learned_tokens
from llava_next_video.train.recipe import DataSettings


@runtime_checkable
class Sequences(Protocol):
    """A data set whose items have expected lengths in tokens."""

    lengths: list[int]

    def __len__(self) -> int:
        """Number of items."""
        ...

    def __getitem__(self, index: int) -> Any:
        """An item, decoded when it is asked for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What makes sequences of samples."""

    processor: LlavaNextVideoProcessor
    encoder: TextEncoder
    config: LlavaNextVideoConfig
    rules: Rules
    decoder: Decoder

    @property
    def padding(self) -> int:
        """The id that fills short rows."""
        tokenizer = self.processor.tokenizer
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return int(padding or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What the loop is given.

    Attributes:
        names: What each sequence holds, by which a resumed run knows that it goes on with the same data.
        count: What a batch adds to the number that the loss of its step is divided by.
    """

    sequences: Sequences
    names: Sequence[Sequence[str]]
    collate: Callable[[Sequence[Any]], dict[str, Any]]
    objective: Objective
    count: Callable[[dict[str, Any]], Tensor] = learned_tokens


def imitation(samples: Sequence[Sample], settings: DataSettings, tools: Tools) -> Lesson:
    """Learn to say what the assistant of each conversation said.

    Raises:
        DataError: A preference pair, or no samples at all.
    """
    data = Samples(
        _records(samples, settings),
        encoder=tools.encoder,
        processor=tools.processor,
        layouts=tools.config,
        rules=tools.rules,
        decoder=tools.decoder,
    )
    return Lesson(
        sequences=data,
        names=[[record.id for record in group] for group in data.groups],
        collate=Collator(tools.padding),
        objective=imitate,
    )


def _records(samples: Sequence[Sample], settings: DataSettings) -> list[Record]:
    records: list[Record] = []
    for sample in samples:
        if isinstance(sample, Preference):
            raise DataError(f"{sample.place}: a preference pair; this stage learns from conversations")
        records.append(bare(sample) if settings.bare else sample)
    if not records:
        raise DataError("there are no samples to learn from; see data.sources and their take")
    return records
