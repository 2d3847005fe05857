"""What goes into the network, and what comes back to the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llava_next_video.engine import TokenLogprob
from llava_next_video.inputs import ModelInputs
from llava_next_video.media import Clip, Picture

Seen = Clip | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A conversation made ready for the network, with the media that it shows."""

    inputs: ModelInputs
    seen: tuple[Seen, ...]
    read_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an answer cost: tokens, and wall time in seconds.

    Attributes:
        prompt_tokens: Tokens of the prompt, visual tokens included.
        visual_tokens: Tokens of the prompt that stand for frames and tiles.
        cached_tokens: Tokens of the prompt that an earlier request had computed.
        completion_tokens: Tokens of the answer.
        read_s: Reading and sampling the media.
        first_token_s: From handing over the prompt to the first token of the answer.
        generate_s: From handing over the prompt to the last token.
    """

    prompt_tokens: int
    visual_tokens: int
    cached_tokens: int
    completion_tokens: int
    read_s: float
    first_token_s: float
    generate_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, the media as the model saw them, and what it cost; `str(answer)` is its text.

    `others` are the further answers to the same question, where more than one was asked for (`n`).
    """

    text: str
    finish_reason: Literal["stop", "length"]
    seen: tuple[Seen, ...]
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] = ()
    others: tuple[Answer, ...] = ()

    def __str__(self) -> str:
        return self.text
