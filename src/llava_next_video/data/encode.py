"""A conversation as token ids, with a label for every token the assistant spoke.

Works on text alone: a medium is one placeholder here, and is repeated as often as it has visual tokens when
that number is known. Visual tokens are never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

from transformers import PreTrainedTokenizerBase

from llava_next_video.data.record import Media, Record
from llava_next_video.errors import ConfigError, DataError, PromptError
from llava_next_video.inputs import MediumKind
from llava_next_video.messages import Image
from llava_next_video.processing.chat import render
from llava_next_video.processing.prompt import encoded, find_placeholders

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Ids and labels of one sequence; each medium is one placeholder id.

    Attributes:
        labels: The id where it is learned, -100 elsewhere.
        branches: 0 for what all questions share, n for the n-th question; a branch sees only itself and 0.
        media: In order of their placeholders.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    branches: tuple[int, ...]
    media: Media


class TextEncoder:
    """Renders conversations with a chat template and marks what the assistant spoke."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str, *, image_token: str, video_token: str
    ) -> None:
        """The template is Jinja text with generation spans.

        Raises:
            ConfigError: The tokenizer knows no offsets, or lacks a placeholder.
        """
        if not tokenizer.is_fast:
            raise ConfigError("labels need a fast tokenizer (tokenizer.json): a slow one knows no offsets")
        self.tokenizer = tokenizer
        self.template = template
        self._placeholders = find_placeholders(tokenizer, {"image": image_token, "video": video_token})

    @property
    def placeholders(self) -> Mapping[int, MediumKind]:
        """The kind of medium behind each placeholder id."""
        return {token: kind for kind, token in self._placeholders.ids.items()}

    def encode(self, record: Record) -> Encoded:
        """Ids and labels of a whole conversation.

        Raises:
            DataError: A placeholder is part of what was said, or the template cannot say it.
        """
        special = self.tokenizer.special_tokens_map
        try:
            rendered = render(
                self.template,
                record.turns,
                add_generation_prompt=False,
                mark_spoken=True,
                variables={key: value for key, value in special.items() if isinstance(value, str)},
            )
        except PromptError as error:
            raise DataError(f"{record.place}: {error}") from error
        start = self.tokenizer.bos_token
        prompt = encoded(
            self.tokenizer,
            rendered.text,
            placeholders=self._placeholders,
            tokens={"image": repeat(1), "video": repeat(1)},
            add_special_tokens=start is None or not rendered.text.startswith(start),
            spoken=rendered.spoken,
        )
        kinds = [span.kind for span in prompt.spans]
        wanted = ["image" if isinstance(medium, Image) else "video" for medium in record.media]
        if kinds != wanted:
            raise DataError(
                f"{record.place}: {len(kinds)} placeholders for {len(wanted)} media in the rendered text; "
                "is <image> or <video> part of the words, or does the template leave media out?"
            )
        if not any(prompt.spoken):
            raise DataError(f"{record.place}: the assistant says nothing; there is nothing to learn")
        labels = tuple(
            token if said else IGNORED for token, said in zip(prompt.ids, prompt.spoken, strict=True)
        )
        return Encoded(ids=prompt.ids, labels=labels, branches=(0,) * len(prompt.ids), media=record.media)


def expanded_length(encoded: Encoded, tokens: Sequence[int]) -> int:
    """Length of the sequence once each medium has its visual tokens."""
    return len(encoded.ids) - len(tokens) + sum(tokens)


def shortened(encoded: Encoded, excess: int, placeholders: Mapping[int, object]) -> Encoded | None:
    """The sequence without its last `excess` ids; None where that would cut a medium or all that is learned.

    Whatever question is then left without an answer goes too.
    """
    keep = len(encoded.ids) - excess
    while keep > 0 and encoded.labels[keep - 1] == IGNORED:
        keep -= 1
    if keep <= 0 or any(token in placeholders for token in encoded.ids[keep:]):
        return None
    return Encoded(
        ids=encoded.ids[:keep],
        labels=encoded.labels[:keep],
        branches=encoded.branches[:keep],
        media=encoded.media,
    )
