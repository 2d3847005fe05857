"""Prompts in ids: placeholders repeated, cut, padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from llava_next_video.errors import CapacityError, ConfigError, PromptError
from llava_next_video.inputs import MediumKind

Side = Literal["left", "right"]
THINGS: Mapping[MediumKind, str] = {"image": "picture", "video": "clip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where the visual tokens of one medium stand."""

    kind: MediumKind
    start: int
    tokens: int

    @property
    def stop(self) -> int:
        """Index after the last of them."""
        return self.start + self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt in ids, each placeholder as often as its medium has visual tokens.

    `spoken` says for each id whether the assistant said it.
    """

    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    spoken: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholders:
    """What stands for a medium in text, and its id."""

    text: Mapping[MediumKind, str]
    ids: Mapping[MediumKind, int]

    def kind_of(self, token: int) -> MediumKind | None:
        """The kind of medium that an id stands for."""
        for kind, placeholder in self.ids.items():
            if token == placeholder:
                return kind
        return None


def find_placeholders(tokenizer: PreTrainedTokenizerBase, text: Mapping[MediumKind, str]) -> Placeholders:
    """The ids of the placeholders, by the tokenizer, which alone knows (configs in the wild are wrong).

    Raises:
        ConfigError: The tokenizer has no such token.
    """
    vocabulary = tokenizer.get_vocab()
    for kind, token in text.items():
        if token not in vocabulary:
            raise ConfigError(
                f"the tokenizer has no token {token!r} for a {THINGS[kind]}; "
                f"add it: tokenizer.add_tokens([{token!r}], special_tokens=True)"
            )
    return Placeholders(text=dict(text), ids={kind: vocabulary[token] for kind, token in text.items()})


def check_counts(
    text: Mapping[MediumKind, str], found: Mapping[MediumKind, int], given: Mapping[MediumKind, int]
) -> None:
    """Refuse a prompt with more or fewer placeholders than media.

    Raises:
        PromptError: Naming both numbers.
    """
    for kind, placeholder in text.items():
        if found[kind] != given[kind]:
            raise PromptError(
                f"the prompt has {found[kind]} {placeholder} placeholder{'s' * (found[kind] != 1)} and "
                f"{given[kind]} {THINGS[kind]}{'s' * (given[kind] != 1)} came with it; give one for each"
            )


def encoded(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    placeholders: Placeholders,
    tokens: Mapping[MediumKind, Iterator[int]],
    add_special_tokens: bool = True,
    spoken: Sequence[tuple[int, int]] = (),
) -> Prompt:
    """The ids of a text, with the n-th placeholder of a kind as often as the n-th number of that kind says.

    Ids are repeated after the text was cut into tokens: placeholders are whole tokens, so this gives the ids
    of the text with repeated placeholders, in a fraction of the time.
    """
    split = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=bool(spoken))
    short: list[int] = split["input_ids"]
    said = [
        any(first < stop and last > start for start, stop in spoken)
        for first, last in (split["offset_mapping"] if spoken else [(0, 0)] * len(short))
    ]
    ids: list[int] = []
    mask: list[bool] = []
    spans: list[Span] = []
    for token, by_assistant in zip(short, said, strict=True):
        kind = placeholders.kind_of(token)
        times = 1 if kind is None else next(tokens[kind])
        if kind is not None:
            spans.append(Span(kind=kind, start=len(ids), tokens=times))
        ids += [token] * times
        mask += [by_assistant and kind is None] * times
    return Prompt(ids=tuple(ids), spans=tuple(spans), spoken=tuple(mask))


def truncated(
    prompt: Prompt, *, room: int, side: Side, tokenizer: PreTrainedTokenizerBase, special: bool
) -> Prompt:
    """The prompt in at most `room` ids, words cut from that side; ids that the tokenizer itself adds stay.

    Raises:
        CapacityError: Visual tokens would be cut.
    """
    surplus = len(prompt.ids) - room
    if surplus <= 0:
        return prompt
    first, last = _added(prompt.ids, tokenizer) if special else (0, 0)
    start = first if side == "left" else len(prompt.ids) - last - surplus
    stop = start + surplus
    if start < first or any(span.start < stop and span.stop > start for span in prompt.spans):
        visual = sum(span.tokens for span in prompt.spans)
        raise CapacityError(
            f"the prompt has {len(prompt.ids)} tokens, {visual} of them visual, and max_length is {room}: "
            "cutting would drop visual tokens; use fewer frames, a larger max_length or truncation=False"
        )
    moved = [
        Span(kind=span.kind, start=span.start - surplus * (span.start >= stop), tokens=span.tokens)
        for span in prompt.spans
    ]
    return Prompt(
        ids=prompt.ids[:start] + prompt.ids[stop:],
        spans=tuple(moved),
        spoken=prompt.spoken[:start] + prompt.spoken[stop:],
    )


def _added(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """How many ids the tokenizer puts before and after a text."""
    probe: list[int] = tokenizer("a")["input_ids"]
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    for first in range(len(probe) - len(bare) + 1):
        if probe[first : first + len(bare)] == bare:
            return first, len(probe) - len(bare) - first
    return 0, 0


def padded_length(
    lengths: Sequence[int], *, padding: object, max_length: int | None, multiple: int | None
) -> int | None:
    """The common length of a batch, or None to leave each prompt as it is.

    `padding` has the values that tokenizers take: True or `longest`, `max_length`, False or `do_not_pad`.
    """
    padding = getattr(padding, "value", padding)
    match padding:
        case False | None | "do_not_pad":
            return None
        case True | "longest":
            length = max(lengths)
        case "max_length":
            if max_length is None:
                raise ConfigError("padding='max_length' needs max_length")
            length = max(max_length, *lengths)
        case _:
            raise ConfigError(f"padding is {padding!r}; expected True, False, 'longest' or 'max_length'")
    return -(-length // multiple) * multiple if multiple else length


def padded(row: Sequence[int], length: int, filler: int, side: Side) -> list[int]:
    """The row at that length.

    >>> padded([1, 2], 4, 0, "left")
    [0, 0, 1, 2]
    """
    missing = [filler] * (length - len(row))
    return [*missing, *row] if side == "left" else [*row, *missing]
