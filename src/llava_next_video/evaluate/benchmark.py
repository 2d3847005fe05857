"""What makes a benchmark: its rows, its protocols, its marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava_next_video.evaluate.items import LETTERS, Fields, Item
from llava_next_video.evaluate.rubrics import Rubric

SUBTITLES = "This video's subtitles are listed below: \n{}\n"
"""What stands before a prompt with subtitles. Source: Video-MME, README; lmms-eval has the same."""

DIRECTLY = "\nAnswer with the option's letter from the given choices directly."
"""The usual ending of LLaVA's multiple choice. Source: LLaVA-1.5; lmms-eval's `default` prompts."""

Prompt = Callable[[Item, str], str]
"""An item and one of its questions to the words that the model is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A published way to ask and to mark.

    Attributes:
        source: Where it was published, and what is odd about it.
        prompt: Without subtitles.
        prompt_with_subtitles: What follows the subtitles, where the benchmark has them.
        parser: Name of the parser of letters; None where a judge marks.
        rubrics: What a judge is asked about each item; empty where a parser marks.
        subtitle_frames: Of so many evenly spread frames the subtitles are shown; None: of those that the
            model sees.
    """

    name: str
    source: str
    prompt: Prompt
    prompt_with_subtitles: Prompt | None = None
    parser: str | None = None
    rubrics: tuple[Rubric, ...] = ()
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    subtitle_frames: int | None = None

    def __post_init__(self) -> None:
        if (self.parser is None) == (not self.rubrics):
            raise ValueError(f"{self.name}: a protocol has a parser or rubrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A set of questions in its published format.

    Attributes:
        source: Where it comes from.
        rows: Names of the columns, as `evaluate list` shows them.
        read: A row to its item.
        protocols: The first is used unless another is named.
    """

    name: str
    source: str
    rows: str
    read: Callable[[Fields], Item]
    protocols: tuple[Protocol, ...]


def lettered(options: Sequence[str], shape: str = "{}. {}") -> str:
    """The options a line each, with letters.

    >>> lettered(["star", "ring"], "({}) {}")
    '(A) star\\n(B) ring'
    """
    return "\n".join(shape.format(letter, one) for letter, one in zip(LETTERS, options, strict=False))


def letter(item: Item, question: str) -> str:
    """The usual words of LLaVA's multiple choice, for options that come without letters."""
    return f"{question}\n{lettered(item.options)}{DIRECTLY}"


def as_asked(item: Item, question: str) -> str:
    """The question and nothing else."""
    return question
