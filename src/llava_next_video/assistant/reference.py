"""The reference network, one request after the other.

Has the verbs of the engine (`add`, `step`, `stop`, `abort`), so that the front door need not know which of
the two it talks to.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol, runtime_checkable

from transformers import GenerationConfig

from llava_next_video.engine import FinishReason, Load, Output, SamplingOptions, Timings
from llava_next_video.errors import ConfigError
from llava_next_video.inputs import ModelInputs
from llava_next_video.long_video import RopeScaling
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.context import chosen_rope, refuse_too_long, with_rope
from llava_next_video.model.reference import answer_ids

NEEDS_THE_ENGINE = ("presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "guide", "n")


@runtime_checkable
class Network(Protocol):
    """Takes prompts, gives ids step by step: the engine or the reference."""

    @property
    def busy(self) -> bool:
        """Whether some request waits or runs."""

    def add(self, inputs: ModelInputs, options: SamplingOptions, *, salt: bytes = b"") -> int:
        """Queue a prompt; gives the id under which its outputs come.

        What is computed for it is shared only with prompts of equal `salt`.
        """

    def step(self) -> list[Output]:
        """Do some work; gives what is new."""

    def stop(self, request_id: int) -> bool:
        """End a request, as its text is complete; gives whether it was still there."""

    def abort(self, request_id: int) -> bool:
        """End a request that nobody waits for; gives whether it was still there."""

    def load(self) -> Load:
        """What it is doing, and what it did since it was made."""


@dataclass(slots=True, kw_only=True)
class _Request:
    id: int
    inputs: ModelInputs
    options: SamplingOptions
    timings: Timings
    rope: RopeScaling | None
    ids: Generator[int] | None = None
    written: int = 0
    ending: FinishReason | None = None


@dataclass(slots=True, kw_only=True)
class ReferenceNetwork:
    """`model.generate`, spelled like the engine; `tokens` is how many ids the tokenizer knows."""

    model: LlavaNextVideoForConditionalGeneration
    tokens: int
    pad_token_id: int
    _queue: deque[_Request] = field(default_factory=deque)
    _numbers: count[int] = field(default_factory=count)
    _prompt_tokens: int = 0
    _generated_tokens: int = 0
    _finished: int = 0

    @property
    def busy(self) -> bool:
        """Whether some request waits or runs."""
        return bool(self._queue)

    def add(self, inputs: ModelInputs, options: SamplingOptions, *, salt: bytes = b"") -> int:
        """Queue a prompt; nothing is shared among prompts, whatever their `salt`.

        Raises:
            ConfigError: An option that `generate` does not know, or positions that cannot be scaled so.
            CapacityError: Prompt and answer do not fit the context.
        """
        plain = SamplingOptions()
        unknown = [name for name in NEEDS_THE_ENGINE if getattr(options, name) != getattr(plain, name)]
        if unknown:
            raise ConfigError(f"the reference network does not honour {', '.join(unknown)}; leave it out")
        config, needed = self.model.config, len(inputs.ids) + options.max_new_tokens
        rope = chosen_rope(config, inputs.rope, needed)
        refuse_too_long(needed, config if rope is None else with_rope(config, rope))
        number = next(self._numbers)
        timings = Timings(arrived_s=time.monotonic())
        self._queue.append(_Request(id=number, inputs=inputs, options=options, timings=timings, rope=rope))
        return number

    def step(self) -> list[Output]:
        """One more token of the oldest request."""
        if not self._queue:
            return []
        request = self._queue[0]
        if request.ending is not None:
            return [self._end(request, request.ending)]
        if request.ids is None:
            request.timings.started_s = time.monotonic()
            self._prompt_tokens += len(request.inputs.ids)
            request.ids = answer_ids(
                self.model,
                request.inputs,
                self._config(request.options),
                seed=request.options.seed,
                rope=request.rope,
            )
        token = next(request.ids, None)
        if token is None:
            return [self._end(request, "length")]
        if token in self._end_ids(request.options):
            return [self._end(request, "stop")]
        if not request.written:
            request.timings.first_token_s = time.monotonic()
        request.written += 1
        self._generated_tokens += 1
        return [_output(request, (token,), None)]

    def stop(self, request_id: int) -> bool:
        """End a request with reason "stop"."""
        return self._mark(request_id, "stop")

    def abort(self, request_id: int) -> bool:
        """End a request with reason "abort"."""
        return self._mark(request_id, "abort")

    def load(self) -> Load:
        """What it is doing, and what it did since it was made; it has neither pages nor kept features."""
        running = sum(request.ids is not None for request in self._queue)
        return Load(
            waiting=len(self._queue) - running,
            running=running,
            pages=0,
            pages_used=0,
            pages_cached=0,
            features_in_use=0,
            feature_bytes_idle=0,
            preemptions=0,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=0,
            generated_tokens=self._generated_tokens,
            frames=0,
            finished=self._finished,
        )

    def _mark(self, request_id: int, reason: FinishReason) -> bool:
        for request in self._queue:
            if request.id == request_id:
                request.ending = reason
                return True
        return False

    def _end(self, request: _Request, reason: FinishReason) -> Output:
        self._queue.remove(request)
        if request.ids is not None:
            request.ids.close()
        request.timings.finished_s = time.monotonic()
        self._finished += 1
        return _output(request, (), reason)

    def _config(self, options: SamplingOptions) -> GenerationConfig:
        config = self.model.config
        never = {config.image_token_id, config.video_token_id}
        never.update(range(self.tokens, config.get_text_config().vocab_size))
        ends = self._end_ids(options)
        if options.ignore_eos:
            never |= self._end_ids(SamplingOptions())
        sampled = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
        return GenerationConfig(
            do_sample=options.temperature > 0,
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            min_p=options.min_p or None,
            repetition_penalty=options.repetition_penalty,
            eos_token_id=sorted(ends) or None,
            pad_token_id=self.pad_token_id,
            suppress_tokens=sorted(never),
            **(sampled if options.temperature > 0 else {}),
        )

    def _end_ids(self, options: SamplingOptions) -> set[int]:
        own = self.model.generation_config.eos_token_id
        ends = set() if own is None or options.ignore_eos else {own} if isinstance(own, int) else set(own)
        return ends | set(options.stop_token_ids)


def _output(request: _Request, ids: tuple[int, ...], finish: FinishReason | None) -> Output:
    return Output(
        request_id=request.id,
        index=0,
        ids=ids,
        logprobs=(),
        finish=finish,
        error=None,
        prompt_tokens=len(request.inputs.ids),
        cached_tokens=0,
        completion_tokens=request.written,
        timings=request.timings,
    )
