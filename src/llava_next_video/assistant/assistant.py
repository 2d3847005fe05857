"""Ask a loaded model about clips and pictures.

Joins the rooms below: media reads the clip, processing turns the conversation into ids and pixels, the
network answers in ids, and the ids become text again. Read this file from top to bottom to see it all work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from typing import cast

from llava_next_video.assistant.answers import Answer, Prompt, Seen, Usage
from llava_next_video.assistant.loading import (
    default_checkpoint,
    load_network,
    options_from,
    refuse_name,
)
from llava_next_video.assistant.reference import Network
from llava_next_video.engine import Output, SamplingOptions, TokenLogprob
from llava_next_video.errors import LlavaNextVideoError, PromptError
from llava_next_video.media import Clip, Limits, Picture, Sampling, Source, is_clip, read_clip, read_image
from llava_next_video.messages import Image, Turn, Video, read_messages, user
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.processing.detokenize import TextStream

Medium = Source | Image | Video
Conversation = Callable[[], Sequence[Turn]]
"""Made by a reader: whether a source is a clip or a picture is found out by looking into it."""

READERS = 2
READ_AHEAD = 4
TOGETHER = 64


@dataclass(slots=True, kw_only=True)
class _Running:
    """An answer being written."""

    place: int
    prompt: Prompt
    text: TextStream
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


class VideoAssistant:
    """A loaded model that answers questions about clips and pictures.

    Media are paths, URLs, bytes, file objects, arrays (frames x height x width x 3), Pillow pictures, frame
    folders, or `messages.Image` / `messages.Video` to say which of the two a source is. `frames` says which
    moments of a clip to look at (default: 8, evenly spread). `sampling` takes the names of transformers'
    `GenerationConfig`: `max_new_tokens`, `temperature` (0, the default, is greedy), `top_p`, `stop`, ...
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
        )
        return cls(network, processor, limits=limits)

    def ask(
        self,
        media: Medium | Sequence[Medium],
        question: str,
        *,
        frames: Sampling | int | None = None,
        **sampling: object,
    ) -> Answer:
        """Answer one question about one medium or several.

        Raises:
            MediaError: A medium cannot be read.
            CapacityError: Prompt and answer do not fit the model's context.
            SamplingError: An unknown or impossible generation setting.
        """
        return next(self.ask_many([(media, question)], frames=frames, **sampling))

    def ask_many(
        self,
        questions: Iterable[tuple[Medium | Sequence[Medium], str]],
        *,
        frames: Sampling | int | None = None,
        **sampling: object,
    ) -> Iterator[Answer]:
        """Answers in the order of the questions.

        The questions are answered together, as many as the network takes, while the next media are read. An
        error is raised in the place of its answer; later questions are then given up.
        """
        conversations = (partial(_asked, media, text, self.limits) for media, text in questions)
        return self._in_order(self._run(conversations, _as_sampling(frames), options_from(sampling)))

    def chat(self, messages: object, *, frames: Sampling | int | None = None, **sampling: object) -> Answer:
        """The assistant's next turn in a conversation, spelled as Hugging Face, OpenAI or LLaVA do.

        Raises:
            PromptError: The messages cannot be read, or the last one is not the user's.
        """
        conversation = partial(read_messages, messages)
        return next(self._in_order(self._run([conversation], _as_sampling(frames), options_from(sampling))))

    def stream(
        self,
        media: Medium | Sequence[Medium],
        question: str,
        *,
        frames: Sampling | int | None = None,
        **sampling: object,
    ) -> Iterator[str]:
        """The pieces of an answer as they are written; joined they are the text that `ask` gives.

        Closing the iterator stops the answer.
        """
        conversation = partial(_asked, media, question, self.limits)
        with closing(self._run([conversation], _as_sampling(frames), options_from(sampling))) as events:
            for _, event in events:
                if isinstance(event, str):
                    yield event
                elif isinstance(event, LlavaNextVideoError):
                    raise event

    def _in_order(
        self, events: Generator[tuple[int, str | Answer | LlavaNextVideoError]]
    ) -> Generator[Answer]:
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
        self, conversations: Iterable[Conversation], frames: Sampling, options: SamplingOptions
    ) -> Generator[tuple[int, str | Answer | LlavaNextVideoError]]:
        """What happens to many conversations: pieces of text, answers and refusals, with their place."""
        todo = enumerate(conversations)
        reading: deque[tuple[int, Future[Prompt]]] = deque()
        running: dict[int, _Running] = {}
        with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as readers:
            try:
                while True:
                    while len(reading) < READ_AHEAD and (following := next(todo, None)) is not None:
                        place, conversation = following
                        reading.append((place, readers.submit(self._read, conversation, frames)))
                    if not reading and not running:
                        return
                    while reading and len(running) < TOGETHER and (reading[0][1].done() or not running):
                        place, promise = reading.popleft()
                        try:
                            prompt = promise.result()
                            number = self.network.add(prompt.inputs, options)
                        except LlavaNextVideoError as error:
                            yield place, error
                            break
                        text = TextStream(self.processor.tokenizer, options.stop)
                        running[number] = _Running(place=place, prompt=prompt, text=text)
                        self._outputs[number] = []
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

    def _step(self) -> None:
        """Let the network work; what it says goes to whoever waits for it."""
        for output in self.network.step():
            if output.request_id in self._outputs:
                self._outputs[output.request_id].append(output)

    def _tell(
        self, output: Output, running: dict[int, _Running]
    ) -> Iterator[tuple[int, str | Answer | LlavaNextVideoError]]:
        """What one output of the network means to the user."""
        one = running[output.request_id]
        pieces = [one.text.push(token) for token in output.ids]
        if output.finish is not None:
            pieces.append(one.text.finish())
        elif one.text.stopped:
            self.network.stop(output.request_id)
        one.logprobs.extend(output.logprobs)
        for piece in filter(None, pieces):
            one.pieces.append(piece)
            yield one.place, piece
        if output.finish is None:
            return
        del running[output.request_id], self._outputs[output.request_id]
        if output.finish == "error":
            yield one.place, LlavaNextVideoError(output.error or "the network gave up without a reason")
        else:
            yield one.place, _finished(one, output)

    def _read(self, conversation: Conversation, frames: Sampling) -> Prompt:
        started = time.perf_counter()
        turns = conversation()
        if turns[-1].role != "user":
            raise PromptError(f"the last message is the {turns[-1].role}'s; end with a user's message")
        seen = tuple(self._see(part, frames) for turn in turns for part in turn.media)
        inputs = self.processor.prepare(turns, seen, add_generation_prompt=True)
        return Prompt(inputs=inputs, seen=seen, read_s=time.perf_counter() - started)

    def _see(self, part: Image | Video, frames: Sampling) -> Seen:
        if part.source is None:
            raise PromptError("a message names an image or video but gives none; add its path, url or data")
        if isinstance(part.source, Clip | Picture):
            return part.source
        source = cast(Source, part.source)  # media refuses, by name, what it cannot read
        if isinstance(part, Video):
            return read_clip(source, frames, self.limits)
        return read_image(source, self.limits)


def _finished(one: _Running, output: Output) -> Answer:
    timings = output.timings
    ended_s = timings.finished_s or timings.arrived_s
    return Answer(
        text="".join(one.pieces),
        finish_reason="length" if output.finish == "length" else "stop",
        seen=one.prompt.seen,
        logprobs=tuple(one.logprobs),
        usage=Usage(
            prompt_tokens=output.prompt_tokens,
            visual_tokens=one.prompt.inputs.visual_tokens,
            cached_tokens=output.cached_tokens,
            completion_tokens=output.completion_tokens,
            read_s=one.prompt.read_s,
            first_token_s=(timings.first_token_s or ended_s) - timings.arrived_s,
            generate_s=ended_s - timings.arrived_s,
        ),
    )


def _as_sampling(frames: Sampling | int | None) -> Sampling:
    if isinstance(frames, Sampling):
        return frames
    return Sampling() if frames is None else Sampling(frames=frames)


def _asked(media: Medium | Sequence[Medium], question: str, limits: Limits) -> tuple[Turn, ...]:
    """A question about one medium or several; what a source holds decides what it is."""
    several = list(media) if isinstance(media, list | tuple) else [media]
    return (user(question, [_as_part(cast(Medium, one), limits) for one in several]),)


def _as_part(one: Medium, limits: Limits) -> Image | Video:
    if isinstance(one, Image | Video):
        return one
    return Video(source=one) if is_clip(one, limits) else Image(source=one)
