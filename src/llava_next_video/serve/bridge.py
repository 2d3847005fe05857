"""Answers as they are written: the engine's thread on one side, coroutines on the other."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Literal

from llava_next_video.assistant import EngineThread, Ticket, VideoAssistant
from llava_next_video.engine import Engine, Output, SamplingOptions, TokenLogprob
from llava_next_video.errors import CapacityError, LlavaNextVideoError
from llava_next_video.inputs import ModelInputs
from llava_next_video.media import Clip, Picture
from llava_next_video.messages import Turn
from llava_next_video.model.context import context_limit
from llava_next_video.processing.detokenize import TextStream
from llava_next_video.processing.structured import json_guide, regex_guide
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.reading import Wish
from llava_next_video.serve.refusals import Refusal

# No tokenizer makes so few tokens of so much text; beyond, cutting it up would only take time.
LETTERS_A_TOKEN = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is new in one of the answers to a prompt."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...]
    finish: Literal["stop", "length"] | None
    output: Output


@dataclass(slots=True)
class _Answer:
    """One answer under way."""

    text: TextStream
    ticket: Ticket | None = None
    stopped: bool = False
    last_s: float | None = None
    heard: bool = False


@dataclass(slots=True)
class _Post:
    """Outputs on their way from the engine's thread to the loop: one wake-up for all of a step."""

    loop: asyncio.AbstractEventLoop
    waiting: deque[tuple[asyncio.Queue[tuple[int, Output]], int, Output]] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)
    called: bool = False

    def put(self, queue: asyncio.Queue[tuple[int, Output]], index: int, output: Output) -> None:
        """Hand an output over; called in the engine's thread."""
        with self.lock:
            self.waiting.append((queue, index, output))
            called, self.called = self.called, True
        if not called:
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self.lock:
            letters, self.waiting, self.called = self.waiting, deque(), False
        for queue, index, output in letters:
            queue.put_nowait((index, output))


class Bridge:
    """Asks the engine for coroutines; leaving an iteration aborts what it asked for."""

    def __init__(self, assistant: VideoAssistant, metrics: Metrics) -> None:
        self.processor = assistant.processor
        self.thread = EngineThread(assistant.network)
        self.context = _context(assistant)
        self._metrics = metrics
        self._post = _Post(asyncio.get_running_loop())
        # Preparing a prompt is Python: more threads would only fight for it.
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="prompt")

    async def prepare(
        self, turns: Sequence[Turn], seen: Sequence[Clip | Picture], tenant: bytes
    ) -> ModelInputs:
        """A conversation as ids with promises of pixels.

        Raises:
            PromptError: Turns and media do not agree.
            CapacityError: More text than any context holds.
        """
        self.refuse_length(sum(len(turn.text) for turn in turns))
        loop = asyncio.get_running_loop()
        inputs = await loop.run_in_executor(self._threads, self.processor.prepare, turns, seen)
        if not tenant:
            return inputs
        salted = (replace(one, key=hashlib.sha256(tenant + one.key).digest()) for one in inputs.media)
        return replace(inputs, media=tuple(salted))

    async def ids(self, text: str, *, special: bool) -> tuple[int, ...]:
        """The ids of a text; `special` adds those that begin a prompt.

        Raises:
            CapacityError: More text than any context holds.
        """
        self.refuse_length(len(text))
        call = partial(self.processor.tokenizer, text, add_special_tokens=special)
        return tuple((await asyncio.get_running_loop().run_in_executor(self._threads, call))["input_ids"])

    def refuse_length(self, letters: int) -> None:
        """Raise on more text than could ever fit.

        Raises:
            CapacityError: With both numbers.
        """
        if letters > LETTERS_A_TOKEN * self.context:
            raise CapacityError(f"{letters} letters of text, and {self.context} tokens fit the context")

    async def answers(self, prompts: Sequence[ModelInputs], wish: Wish, salt: bytes) -> AsyncGenerator[Piece]:
        """The pieces of all answers, as they come; those to the first prompt have the first indices.

        Raises:
            CapacityError: Prompt and answer do not fit; SamplingError: an option that cannot be honoured.
            Refusal: The engine has crashed or is closing.
        """
        queue: asyncio.Queue[tuple[int, Output]] = asyncio.Queue()
        running: dict[int, _Answer] = {}
        try:
            for index, (inputs, sample) in enumerate(product(prompts, range(wish.answers))):
                options = await self._options(wish, len(inputs.ids), sample)
                answer = running[index] = _Answer(TextStream(self.processor.tokenizer, options.stop))
                answer.ticket = self._submit(inputs, options, partial(self._post.put, queue, index), salt)
            while running:
                index, output = await queue.get()
                answer = running[index]
                if output.finish is not None:
                    del running[index]
                    self._refuse_unless_finished(answer, output)
                yield self._piece(index, answer, output)
        finally:
            for answer in running.values():
                if answer.ticket is not None:
                    answer.ticket.abort()
                    self._metrics.abandoned()

    def close(self) -> None:
        """Abort what runs, and end the engine's thread."""
        self.thread.close()
        self._threads.shutdown()

    def _submit(
        self, inputs: ModelInputs, options: SamplingOptions, tell: partial[None], salt: bytes
    ) -> Ticket:
        try:
            return self.thread.submit(inputs, options, tell, salt=salt)
        except LlavaNextVideoError as error:
            raise Refusal(503, str(error), "engine_down", retry_after_s=30) from error

    async def _options(self, wish: Wish, prompt: int, sample: int) -> SamplingOptions:
        """How this one of the answers is chosen; one of no stated length may fill the room that is left."""
        options = wish.options
        room = self.context - prompt
        if wish.new_tokens is None and 1 <= room < options.max_new_tokens:
            least = min(options.min_new_tokens, room)
            options = replace(options, max_new_tokens=room, min_new_tokens=least)
        if options.seed is not None:
            options = replace(options, seed=(options.seed + sample) % 2**63)
        if wish.shape is None:
            return options
        shape, tokenizer = wish.shape, self.processor.tokenizer
        make = partial(json_guide, shape.schema or {}, tokenizer)
        if shape.pattern is not None:
            make = partial(regex_guide, shape.pattern, tokenizer)
        guide = await asyncio.get_running_loop().run_in_executor(self._threads, make)
        return replace(options, guide=guide)

    def _refuse_unless_finished(self, answer: _Answer, output: Output) -> None:
        if output.finish in ("stop", "length"):
            self._metrics.finished(output, output.finish)
            return
        refusal = answer.ticket.refusal if answer.ticket is not None else None
        if isinstance(refusal, LlavaNextVideoError):
            raise refusal
        if output.finish == "abort" or not self.thread.alive:
            raise Refusal(503, output.error or "the server is stopping; ask another one", "engine_down")
        logger.error("a request failed in the engine: %s", output.error)
        raise Refusal(500, "the engine failed on this request; the server's log says why", "engine_error")

    def _piece(self, index: int, answer: _Answer, output: Output) -> Piece:
        at = output.timings
        if output.ids and at.first_token_s is not None:
            if not answer.heard:
                self._metrics.first(at.first_token_s - at.arrived_s)
            elif answer.last_s is not None:
                self._metrics.between(asyncio.get_running_loop().time() - answer.last_s, len(output.ids))
            answer.heard, answer.last_s = True, asyncio.get_running_loop().time()
        text = "".join(answer.text.push(token) for token in output.ids)
        finish: Literal["stop", "length"] | None = None
        if output.finish is not None:
            text += answer.text.finish()
            finish = "length" if output.finish == "length" and not answer.text.stopped else "stop"
        elif answer.text.stopped and not answer.stopped and answer.ticket is not None:
            answer.stopped = True
            answer.ticket.stop()
        return Piece(index=index, text=text, logprobs=output.logprobs, finish=finish, output=output)


def _context(assistant: VideoAssistant) -> int:
    """Tokens that prompt and answer may have together."""
    network = assistant.network
    if isinstance(network, Engine):
        return min(network.decoder.context, network.pages.count * network.settings.page_tokens)
    return context_limit(network.model.config)  # type: ignore[attr-defined]
