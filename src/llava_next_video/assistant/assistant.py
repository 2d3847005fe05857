"""Ask a loaded model about clips and pictures.

Joins the rooms below: media reads the clip, processing turns the conversation into ids and pixels, the
network answers in ids, and the ids become text again. Read this file from top to bottom to see it all work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike

from llava_next_video.assistant.answers import Answer, Prompt
from llava_next_video.assistant.loading import default_checkpoint, load_network, refuse_name
from llava_next_video.assistant.options import options_from
from llava_next_video.assistant.reading import Medium, Reader
from llava_next_video.assistant.reference import Network
from llava_next_video.assistant.writing import Writer
from llava_next_video.engine import Output, SamplingOptions
from llava_next_video.errors import LlavaNextVideoError, SamplingError
from llava_next_video.media import Limits, Sampling
from llava_next_video.processing import LlavaNextVideoProcessor
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


class VideoAssistant:
    """A loaded model that answers questions about clips and pictures.

    Media are paths, URLs, bytes, file objects, arrays (frames x height x width x 3), Pillow pictures, frame
    folders, a `Clip` or `Picture` that was read before, or `messages.Image` / `messages.Video` to say which
    of the two a source is. `frames` says which moments of a clip to look at (default: 8, evenly spread);
    `max_visual_tokens` bounds the visual tokens of a prompt by showing fewer. `sampling` takes the names of
    transformers' `GenerationConfig`: `max_new_tokens`, `temperature` (0, the default, is greedy), `top_p`,
    `stop`, ...; with `n` there are several answers to each question, all but the first in `Answer.others`.
    """

    def __init__(
        self, network: Network, processor: LlavaNextVideoProcessor, *, limits: Limits | None = None
    ) -> None:
        """Join an engine (or the reference network) and the processor of the same checkpoint."""
        self.network = network
        self.processor = processor
        self.limits = limits or Limits()
        # Each iterator that is alive finds its outputs here, whichever of them made the network step.
        self._outputs: dict[int, list[Output]] = {}

    @classmethod
    def load(
        cls,
        name: str | PathLike[str] | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        quantize: str | None = None,
        rope_factor: float | None = None,
        reference: bool = False,
        adapter: str | PathLike[str] | None = None,
        kv_bytes: int | None = None,
        limits: Limits | None = None,
    ) -> VideoAssistant:
        """Load a checkpoint folder, or a checkpoint of the hub by its name.

        Args:
            name: Folder or hub name; by default the small checkpoint of the package, which knows shapes that
                move and nothing else.
            device: A torch device; by default the first GPU, else the CPU. The engine runs on a CPU; anywhere
                else the reference network answers.
            dtype: `float32`, `bfloat16`, `float16`; by default what the device computes fastest.
            quantize: `int8` for 8-bit weights and activations in the engine.
            rope_factor: Stretch the context that many times (linear rope scaling), so that longer clips fit
                a model that was trained on shorter ones; by default what the checkpoint says.
            reference: Answer with the reference network's `generate` instead of the engine.
            adapter: Folder with LoRA weights that PEFT saved, to add to the checkpoint's.
            kv_bytes: Memory for the engine's keys and values; by default 2 GiB.
            limits: How large a clip or picture may be.

        Raises:
            CheckpointError: The folder is missing, incomplete, corrupt or unsafe.
            ConfigError: An unknown device, dtype or quantisation, or two that do not go together.
        """
        name = default_checkpoint() if name is None else name
        refuse_name(name)
        processor = LlavaNextVideoProcessor.from_pretrained(name)
        network = load_network(
            name,
            processor,
            device=device,
            dtype=dtype,
            quantize=quantize,
            rope_factor=rope_factor,
            reference=reference,
            adapter=adapter,
            kv_bytes=kv_bytes,
        )
        return cls(network, processor, limits=limits)

    def ask(
        self,
        media: Medium | Sequence[Medium],
        question: str,
        *,
        frames: Sampling | int | None = None,
        max_visual_tokens: int | None = None,
        **sampling: object,
    ) -> Answer:
        """Answer one question about one medium or several.

        Raises:
            MediaError: A medium cannot be read.
            CapacityError: Prompt and answer do not fit the model's context.
            SamplingError: An unknown or impossible generation setting.
        """
        return next(
            self.ask_many([(media, question)], frames=frames, max_visual_tokens=max_visual_tokens, **sampling)
        )

    def ask_many(
        self,
        questions: Iterable[tuple[Medium | Sequence[Medium], str]],
        *,
        frames: Sampling | int | None = None,
        max_visual_tokens: int | None = None,
        **sampling: object,
    ) -> Iterator[Answer]:
        """Answers in the order of the questions.

        The questions are answered together, as many as the network takes, while the next media are read. An
        error is raised in the place of its answer; later questions are then given up.
        """
        reader = self._reader(frames, max_visual_tokens)
        prompts = (partial(reader.asked, media, text) for media, text in questions)
        return self._in_order(self._run(prompts, options_from(sampling)))

    def chat(
        self,
        messages: object,
        *,
        frames: Sampling | int | None = None,
        max_visual_tokens: int | None = None,
        **sampling: object,
    ) -> Answer:
        """The assistant's next turn in a conversation, spelled as Hugging Face, OpenAI or LLaVA do.

        Raises:
            PromptError: The messages cannot be read, or the last one is not the user's.
        """
        reader = self._reader(frames, max_visual_tokens)
        return self._first(partial(reader.chatted, messages), options_from(sampling))

    def stream(
        self,
        media: Medium | Sequence[Medium],
        question: str,
        *,
        frames: Sampling | int | None = None,
        max_visual_tokens: int | None = None,
        **sampling: object,
    ) -> Iterator[str]:
        """The pieces of an answer as they are written; joined they are the text that `ask` gives.

        Closing the iterator stops the answer.
        """
        prompt = partial(self._reader(frames, max_visual_tokens).asked, media, question)
        with closing(self._streamed(prompt, options_from(sampling))) as events:
            yield from (event for event in events if isinstance(event, str))

    def stream_chat(
        self,
        messages: object,
        *,
        frames: Sampling | int | None = None,
        max_visual_tokens: int | None = None,
        **sampling: object,
    ) -> Generator[str | Answer]:
        """The pieces of the assistant's next turn as they are written, then the whole answer.

        Closing the iterator stops the answer.
        """
        prompt = partial(self._reader(frames, max_visual_tokens).chatted, messages)
        yield from self._streamed(prompt, options_from(sampling))

    def _streamed(self, prompt: Callable[[], Prompt], options: SamplingOptions) -> Generator[str | Answer]:
        if options.n != 1:
            raise SamplingError(f"n is {options.n}, and a stream is one answer; use ask for several")
        with closing(self._run([prompt], options)) as events:
            for _, event in events:
                if isinstance(event, LlavaNextVideoError):
                    raise event
                yield event

    def _reader(self, frames: Sampling | int | None, max_visual_tokens: int | None) -> Reader:
        return Reader(
            processor=self.processor, limits=self.limits, frames=frames, max_visual_tokens=max_visual_tokens
        )

    def _first(self, prompt: Callable[[], Prompt], options: SamplingOptions) -> Answer:
        return next(self._in_order(self._run([prompt], options)))

    def _in_order(self, events: Generator[tuple[int, Event]]) -> Generator[Answer]:
        early: dict[int, Answer | LlavaNextVideoError] = {}
        wanted = 0
        with closing(events):
            for place, event in events:
                if isinstance(event, str):
                    continue
                early[place] = event
                while wanted in early:
                    answer = early.pop(wanted)
                    if isinstance(answer, LlavaNextVideoError):
                        raise answer
                    yield answer
                    wanted += 1

    def _run(
        self, prompts: Iterable[Callable[[], Prompt]], options: SamplingOptions
    ) -> Generator[tuple[int, Event]]:
        """What happens to many questions, with their place; each is read when its turn comes."""
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
                    self._step()
                    for number in list(running):
                        outputs, self._outputs[number] = self._outputs[number], []
                        for output in outputs:
                            yield from self._tell(output, running)
            finally:
                for _, promise in reading:
                    promise.cancel()
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
            number = self.network.add(prompt.inputs, replace(options, n=1, seed=seed))
            writer = Writer(prompt=prompt, text=TextStream(self.processor.tokenizer, options.stop))
            running[number] = _Running(question=question, index=index, writer=writer)
            self._outputs[number] = []

    def _step(self) -> None:
        """Let the network work; what it says goes to whoever waits for it."""
        for output in self.network.step():
            if output.request_id in self._outputs:
                self._outputs[output.request_id].append(output)

    def _tell(self, output: Output, running: dict[int, _Running]) -> Iterator[tuple[int, Event]]:
        """What one output of the network means to the user."""
        one = running[output.request_id]
        question = one.question
        for piece in one.writer.push(output):
            if one.index == 0:
                yield question.place, piece
        if output.finish is None:
            if one.writer.stopped:
                self.network.stop(output.request_id)
            return
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
