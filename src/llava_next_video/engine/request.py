"""A request on its way through the engine, and what it gives back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

import torch
from torch import Tensor

from llava_next_video.engine.sampling_options import SamplingOptions
from llava_next_video.inputs import Medium, ModelInputs
from llava_next_video.long_video import RopeScaling

FinishReason = Literal["stop", "length", "abort", "timeout", "error"]

UNKNOWN = -1
"""Stands for a token that is being chosen."""


class State(Enum):
    """Where a request stands."""

    WAITING = auto()
    ENCODING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """The log probability of a chosen token, and of the likeliest ones as (id, log probability)."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True, kw_only=True)
class Timings:
    """Moments in the life of a request, on the clock of `time.monotonic`."""

    arrived_s: float
    started_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None

    @property
    def to_first_token_s(self) -> float | None:
        """Seconds from arrival to the first token."""
        return None if self.first_token_s is None else self.first_token_s - self.arrived_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What one step gave one request.

    Attributes:
        request_id: What `Engine.add` returned.
        index: Which of the `n` answers.
        ids: Tokens that are new in this step; an end or stop token is not among them.
        logprobs: One for each new id, if they were asked for.
        finish: Why the request ended; None while it runs.
        error: One sentence when `finish` is "error".
        prompt_tokens: Tokens of the prompt, visual tokens included.
        cached_tokens: Tokens of the prompt that were not computed, as their pages were there already.
        completion_tokens: Tokens generated so far.
        timings: Moments of the request.
    """

    request_id: int
    index: int
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish: FinishReason | None
    error: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    timings: Timings


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One answer being made. `ids` is prompt and answer; the first `computed` have keys and values.

    The last `unknown` ids are still being chosen.
    """

    id: int
    index: int
    options: SamplingOptions
    media: tuple[Medium, ...]
    ids: list[int]
    prompt_tokens: int
    unknown: int = field(default=0, init=False)
    end_ids: frozenset[int]
    deadline_s: float | None
    salt: bytes
    rope: RopeScaling | None = None
    timings: Timings
    generator: torch.Generator | None = None
    state: State = State.WAITING
    computed: int = 0
    cached_tokens: int | None = None
    pages: list[int] = field(default_factory=list)
    published: int = 0
    hashes: list[bytes] = field(default_factory=list)
    features: dict[bytes, Tensor] = field(default_factory=dict)
    finish: FinishReason | None = None
    error: str | None = None

    @classmethod
    def of(
        cls,
        inputs: ModelInputs,
        options: SamplingOptions,
        *,
        id: int,
        index: int,
        end_ids: frozenset[int],
        deadline_s: float | None,
        salt: bytes,
        rope: RopeScaling | None = None,
    ) -> Request:
        """A waiting request for answer `index` of a prompt, with the scaling that was chosen for it.

        Keys are turned before they go into pages, so those of two scalings must never be shared.
        """
        generator = None
        if options.temperature > 0:
            generator = torch.Generator()
            if options.seed is None:
                generator.seed()
            else:
                generator.manual_seed((options.seed + index) % 2**63)
        return cls(
            id=id,
            index=index,
            options=options,
            media=inputs.media,
            ids=list(inputs.ids),
            prompt_tokens=len(inputs.ids),
            end_ids=end_ids,
            deadline_s=deadline_s,
            salt=repr((salt, rope)).encode(),
            rope=rope,
            timings=Timings(arrived_s=time.monotonic()),
            generator=generator,
        )

    @property
    def id_and_index(self) -> tuple[int, int]:
        """Names this answer among all answers."""
        return self.id, self.index

    @property
    def answer(self) -> list[int]:
        """Ids generated so far."""
        return self.ids[self.prompt_tokens :]

    @property
    def known(self) -> int:
        """Tokens of prompt and answer that were chosen."""
        return len(self.ids) - self.unknown

    @property
    def full(self) -> bool:
        """Whether the answer has all tokens it may have, once they are known."""
        return len(self.ids) - self.prompt_tokens >= self.options.max_new_tokens

    @property
    def remaining(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return len(self.ids) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether only the newest token is left to compute."""
        return self.remaining == 1 and self.computed >= self.prompt_tokens

    def needed_media(self) -> list[Medium]:
        """Media of which at least one token is still to be computed."""
        return [medium for medium in self.media if medium.start + medium.tokens > self.computed]

    def output(self, ids: tuple[int, ...] = (), logprobs: tuple[TokenLogprob, ...] = ()) -> Output:
        """What to tell the caller now."""
        return Output(
            request_id=self.id,
            index=self.index,
            ids=ids,
            logprobs=logprobs,
            finish=self.finish,
            error=self.error,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens or 0,
            completion_tokens=self.known - self.prompt_tokens,
            timings=self.timings,
        )
