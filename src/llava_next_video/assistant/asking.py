"""Many questions at one network: read ahead, write together.

Several iterators may be alive, in one thread or in many, and each gets what is its own: whoever has its turn
lets the network work for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from llava_next_video.assistant.answers import Answer, Prompt
from llava_next_video.assistant.reference import Network
from llava_next_video.assistant.turns import Turns
from llava_next_video.assistant.writing import Writer
from llava_next_video.engine import Output, SamplingOptions
from llava_next_video.errors import LlavaNextVideoError, SamplingError
from llava_next_video.processing.detokenize import TextStream

Event = str | Answer | LlavaNextVideoError
"""What happens to a question: a piece of its (first) answer, the whole answer, or a refusal."""

READERS = 2
READ_AHEAD = 4
TOGETHER = 64


@dataclass(slots=True, kw_only=True)
class _Question:
    """A question under way; `done` are those of its `count` answers that are whole."""

    place: int
    count: int
    done: dict[int, Answer] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Running:
    """One of the answers to a question."""

    question: _Question
    index: int
    writer: Writer


@dataclass(slots=True, kw_only=True)
class Asking:
    """Hands prompts to a network and turns what it says into answers."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    # Each iterator that is alive finds its outputs here, whichever of them made the network step.
    _outputs: dict[int, list[Output]] = field(default_factory=dict)
    _turns: Turns = field(default_factory=Turns)  # for the network and the outputs

    def answers(self, prompts: Iterable[Callable[[], Prompt]], options: SamplingOptions) -> Generator[Answer]:
        """The answers in the order of the prompts, each of which is read when its turn comes.

        Raises:
            LlavaNextVideoError: In the place of its answer.
        """
        with closing(self.outcomes(prompts, options)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, LlavaNextVideoError):
                    raise outcome
                yield outcome

    def outcomes(
        self, prompts: Iterable[Callable[[], Prompt]], options: SamplingOptions
    ) -> Generator[Answer | LlavaNextVideoError]:
        """The answers in the order of the prompts; an error in the place of its answer ends nothing else."""
        early: dict[int, Answer | LlavaNextVideoError] = {}
        wanted = 0
        with closing(self._events(prompts, options)) as events:
            for place, event in events:
                if isinstance(event, str):
                    continue
                early[place] = event
                while wanted in early:
                    yield early.pop(wanted)
                    wanted += 1

    def stream(self, prompt: Callable[[], Prompt], options: SamplingOptions) -> Generator[str | Answer]:
        """The pieces of one answer as they are written, then the whole answer.

        Raises:
            SamplingError: More than one answer is asked for.
        """
        if options.n != 1:
            raise SamplingError(f"n is {options.n}, and a stream is one answer; use ask for several")
        with closing(self._events([prompt], options)) as events:
            for _, event in events:
                if isinstance(event, LlavaNextVideoError):
                    raise event
                yield event

    def _events(
        self, prompts: Iterable[Callable[[], Prompt]], options: SamplingOptions
    ) -> Generator[tuple[int, Event]]:
        """What happens to many questions, with their place."""
        todo = enumerate(prompts)
        reading: deque[tuple[int, Future[Prompt]]] = deque()
        running: dict[int, _Running] = {}
        with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as readers:
            try:
                while True:
                    while len(reading) < READ_AHEAD and (following := next(todo, None)) is not None:
                        reading.append((following[0], readers.submit(following[1])))
                    if not reading and not running:
                        return
                    while reading and len(running) < TOGETHER and (reading[0][1].done() or not running):
                        place, promise = reading.popleft()
                        try:
                            self._begin(place, promise.result(), options, running)
                        except LlavaNextVideoError as error:
                            yield place, error
                            break
                    for output in self._heard(running):
                        yield from self._tell(output, running)
            finally:
                for _, promise in reading:
                    promise.cancel()
                with self._turns:
                    for number in running:
                        del self._outputs[number]
                        self.network.abort(number)

    def _begin(
        self, place: int, prompt: Prompt, options: SamplingOptions, running: dict[int, _Running]
    ) -> None:
        """Hand a prompt to the network, once for each answer that is wanted.

        The network computes it once all the same, and each answer can end by itself.
        """
        question = _Question(place=place, count=options.n)
        for index in range(options.n):
            seed = None if options.seed is None else options.seed + index
            writer = Writer(prompt=prompt, text=TextStream(self.tokenizer, options.stop))
            with self._turns:
                number = self.network.add(prompt.inputs, replace(options, n=1, seed=seed))
                running[number] = _Running(question=question, index=index, writer=writer)
                self._outputs[number] = []

    def _heard(self, numbers: Iterable[int]) -> list[Output]:
        """What the network said to these, for which it works unless another thread has let it already."""
        numbers = list(numbers)
        with self._turns:
            if not any(self._outputs[number] for number in numbers):
                for output in self.network.step():
                    self._outputs.get(output.request_id, []).append(output)
            heard = [output for number in numbers for output in self._outputs[number]]
            self._outputs |= {number: [] for number in numbers}
        return heard

    def _tell(self, output: Output, running: dict[int, _Running]) -> Iterator[tuple[int, Event]]:
        """What one output of the network means to the user."""
        one = running[output.request_id]
        question = one.question
        for piece in one.writer.push(output):
            if one.index == 0:
                yield question.place, piece
        if output.finish is None:
            if one.writer.stopped:
                with self._turns:
                    self.network.stop(output.request_id)
            return
        with self._turns:
            del running[output.request_id], self._outputs[output.request_id]
        if output.finish == "error":
            yield (
                question.place,
                LlavaNextVideoError(output.error or "the network gave up without a reason"),
            )
            return
        question.done[one.index] = one.writer.answer(output)
        if len(question.done) == question.count:
            first, *others = (question.done[index] for index in range(question.count))
            yield question.place, replace(first, others=tuple(others))
