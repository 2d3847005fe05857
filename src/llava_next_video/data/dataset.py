"""Samples ready to be batched: text encoded, media decoded, visual tokens in place.

A sample that cannot be used becomes a `Dropped` with its reason; nothing ever takes its place.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from llava_next_video.data.decoder import Decoded, Decoder
from llava_next_video.data.encode import Encoded, TextEncoder, expanded_length, shortened
from llava_next_video.data.measure import Layouts, expected_tokens, visual_tokens
from llava_next_video.data.packing import pack, pack_groups, shared_front
from llava_next_video.data.record import Media, Record
from llava_next_video.errors import CapacityError, MediaError
from llava_next_video.media import Clip, Sampling
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.size import Size

TooLong = Literal["stop", "drop", "shorten"]
BadMedia = Literal["stop", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """What the vision tower sees of one medium; `size` is that of the original picture, None for a clip."""

    values: Float[Tensor, "tiles channels height width"]
    size: Size | None
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sequence, placeholders repeated, with its pixels in order of their placeholders."""

    ids: Int[Tensor, " length"]
    labels: Int[Tensor, " length"]
    branches: Int[Tensor, " length"]
    pixels: tuple[Pixels, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Samples that were left out, by id, and why."""

    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How samples are made ready.

    Attributes:
        context: The longest sequence in tokens.
        pack_tokens: The longest packed sequence; None leaves every sample alone.
        too_long: What happens to a sample beyond the context: stop, drop it, or cut words at its end.
        bad_media: What happens to a sample whose medium does not open.
    """

    sampling: Sampling
    context: int
    pack_tokens: int | None = None
    too_long: TooLong = "stop"
    bad_media: BadMedia = "drop"


class Samples(Dataset["Example | Dropped"]):
    """One item per sequence; `lengths` has the expected tokens of each, for batches of like length."""

    def __init__(
        self,
        records: Sequence[Record],
        *,
        encoder: TextEncoder,
        processor: LlavaNextVideoProcessor,
        layouts: Layouts,
        rules: Rules,
        decoder: Decoder,
    ) -> None:
        self.encoder = encoder
        self.processor = processor
        self.layouts = layouts
        self.rules = rules
        self.decoder = decoder
        self.groups: list[tuple[Record, ...]] = []
        self.lengths: list[int] = []
        if rules.pack_tokens is None:
            for record in records:
                self._add([record], [self.encoder.encode(record)], self._expected(record.media))
            return
        for together in by_media(records):
            encoded = [self.encoder.encode(record) for record in together]
            visual = self._expected(together[0].media)
            limit = min(rules.pack_tokens, rules.context)
            for indices in pack_groups(encoded, tuple(self.encoder.placeholders), visual, limit):
                self._add([together[i] for i in indices], [encoded[i] for i in indices], visual)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> Example | Dropped:
        """The sequence of that number, or why there is none.

        Raises:
            MediaError: A medium does not open, and the rules say stop.
            CapacityError: The sequence is longer than the context, and the rules say stop.
        """
        records = self.groups[index]
        try:
            decoded = [self.decoder.read(medium, self.rules.sampling) for medium in records[0].media]
        except MediaError as error:
            if self.rules.bad_media == "stop":
                raise MediaError(f"{records[0].place}: {error}") from error
            return Dropped(ids=tuple(record.id for record in records), reason=str(error))
        tokens = [visual_tokens(medium, self.layouts) for medium in decoded]
        encoded = self._joined([self.encoder.encode(record) for record in records])
        excess = expanded_length(encoded, tokens) - self.rules.context
        if excess > 0:
            cut = shortened(encoded, excess, self.encoder.placeholders)
            if self.rules.too_long != "shorten" or cut is None:
                return self._refuse(records, encoded, sum(tokens))
            encoded = cut
        pixels = [
            pixels_of(self.processor, medium, count) for medium, count in zip(decoded, tokens, strict=True)
        ]
        return expanded(encoded, pixels, self.encoder)

    def _joined(self, encoded: Sequence[Encoded]) -> Encoded:
        if len(encoded) == 1:
            return encoded[0]
        return pack(encoded, shared_front(encoded, tuple(self.encoder.placeholders)))

    def _add(self, records: Sequence[Record], encoded: Sequence[Encoded], visual: Sequence[int]) -> None:
        self.groups.append(tuple(records))
        self.lengths.append(expanded_length(self._joined(encoded), visual))

    def _expected(self, media: Media) -> list[int]:
        """Visual tokens from headers; a medium that does not open counts as none until it is met."""
        expected = []
        for medium in media:
            try:
                expected.append(expected_tokens(medium, self.rules.sampling, self.layouts))
            except MediaError:
                expected.append(1)
        return expected

    def _refuse(self, records: Sequence[Record], encoded: Encoded, visual: int) -> Dropped:
        words = len(encoded.ids) - len(encoded.media)
        reason = (
            f"{visual + words} tokens ({visual} visual, {words} of text), and the context holds "
            f"{self.rules.context}; use fewer frames, or data.too_long 'shorten' or 'drop'"
        )
        if self.rules.too_long == "stop":
            raise CapacityError(f"{records[0].place}: {reason}")
        return Dropped(ids=tuple(record.id for record in records), reason=reason)


def by_media(records: Sequence[Record]) -> list[list[Record]]:
    """The records in groups that look at the same media; groups and members in order of appearance."""
    groups: dict[Hashable, list[Record]] = {}
    for number, record in enumerate(records):
        key = media_key(record.media) if record.media else number
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def media_key(media: Media) -> Hashable:
    """What two rows of media have in common exactly if they are the same media in the same order."""

    def key(source: object) -> Hashable:
        return tuple(key(frame) for frame in source) if isinstance(source, list | tuple) else repr(source)

    return tuple((type(medium).__name__, key(medium.source)) for medium in media)


def pixels_of(processor: LlavaNextVideoProcessor, decoded: Decoded, tokens: int) -> Pixels:
    """What the tower sees of a decoded medium."""
    if isinstance(decoded, Clip):
        # Its moments were chosen when it was read, whatever number of frames the processor's file has.
        seen = processor.video_processor(videos=[decoded], do_sample_frames=False, return_tensors="pt")
        frames = seen["pixel_values_videos"][0]
        return Pixels(values=frames, size=None, tokens=tokens)
    tiles = processor.image_processor(images=[decoded.image], return_tensors="pt")["pixel_values"][0]
    return Pixels(values=tiles, size=decoded.size, tokens=tokens)


def expanded(encoded: Encoded, pixels: Sequence[Pixels], encoder: TextEncoder) -> Example:
    """The sequence with each placeholder repeated as often as its medium has visual tokens."""
    queue = iter(pixels)
    repeats = torch.tensor(
        [next(queue).tokens if token in encoder.placeholders else 1 for token in encoded.ids]
    )

    def repeated(values: Sequence[int]) -> Int[Tensor, " length"]:
        return torch.tensor(values).repeat_interleave(repeats)

    return Example(
        ids=repeated(encoded.ids),
        labels=repeated(encoded.labels),
        branches=repeated(encoded.branches),
        pixels=tuple(pixels),
    )
