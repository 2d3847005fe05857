"""Ask a loaded model about clips and pictures.

Joins the rooms below. Read `reading` (media and a question become ids and pixels), `asking` (the network gets
them and answers in ids) and `writing` (the ids become text again) to see it all work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from os import PathLike
from typing import Unpack

from llava_next_video.assistant.answers import Answer
from llava_next_video.assistant.asking import Asking
from llava_next_video.assistant.loading import found_checkpoint, load_network
from llava_next_video.assistant.reading import Medium, Reader
from llava_next_video.assistant.reference import Network
from llava_next_video.assistant.wishes import Wishes, read_wishes
from llava_next_video.engine import Engine, SamplingOptions
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.media import Limits
from llava_next_video.processing import LlavaNextVideoProcessor


class VideoAssistant:
    """A loaded model that answers questions about clips and pictures.

    Media are paths, URLs, bytes, file objects, arrays (frames x height x width x 3), Pillow pictures, frame
    folders, a `Clip` or `Picture` that was read before, or `messages.Image` / `messages.Video` to say which
    of the two a source is. `frames` says which moments of a clip to look at (default: 8, evenly spread);
    `max_visual_tokens` bounds the visual tokens of a prompt by showing fewer. For long clips `rope` stretches
    the context of one question (a factor, `auto` for the least that fits, or a `RopeScaling`), `layout` makes
    fewer tokens of most frames (`SlowFast`) or puts newlines elsewhere, and `time_instruction` tells the
    model the seconds of the frames. The other wishes have the names of transformers' `GenerationConfig`:
    `max_new_tokens`, `temperature` (0, the default, is greedy), `top_p`, `stop`, ...; with `n` there are
    several answers to each question, all but the first in `Answer.others`.

    Many threads may ask one assistant; the network answers them together.
    """

    def __init__(
        self, network: Network, processor: LlavaNextVideoProcessor, *, limits: Limits | None = None
    ) -> None:
        """Join an engine (or the reference network) and the processor of the same checkpoint."""
        self.network = network
        self.processor = processor
        self.limits = limits or Limits()
        self._asking = Asking(network=network, tokenizer=processor.tokenizer)

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
        kv_dtype: str | None = None,
        tensor_parallel: int = 1,
        limits: Limits | None = None,
    ) -> VideoAssistant:
        """Load a checkpoint folder, or a checkpoint of the hub by its name.

        Args:
            name: Folder or hub name; by default the small checkpoint of the package, which knows shapes that
                move and nothing else.
            device: A torch device; by default the first GPU, else the CPU. The engine runs on a CPU and on
                NVIDIA's GPUs; anywhere else the reference network answers.
            dtype: `float32`, `bfloat16`, `float16`; by default what the device computes fastest.
            quantize: `int8` for 8-bit weights and activations in the engine on a CPU. On a GPU `fp8` (weights
                and activations, on Ada and Hopper), `int8` or `int4` (weights only). `bnb-8bit` or `bnb-4bit`
                for a language model quantised by bitsandbytes, with which the reference network answers.
            rope_factor: Stretch the context that many times (linear rope scaling) for every question, so that
                longer clips fit a model that was trained on shorter ones; by default what the checkpoint
                says. A question may ask for another (`rope`).
            reference: Answer with the reference network's `generate` instead of the engine.
            adapter: Folder with LoRA weights that PEFT saved, to add to the checkpoint's.
            kv_bytes: Memory for the engine's keys and values; by default 2 GiB, on a GPU what weights
                leave free.
            kv_dtype: `fp8` stores the engine's keys and values in 8 bits, on Ada and Hopper GPUs; twice as
                many fit. By default they are as precise as the weights.
            tensor_parallel: So many processes share the engine's text layers, each with a GPU of its own, for
                a network that one GPU cannot hold (34B). They are started here, and end with `close` or with
                this process. On a CPU that works, too, but nothing is gained. Never tried on several GPUs.
            limits: How large a clip or picture may be.

        Raises:
            CheckpointError: The folder is missing, incomplete, corrupt or unsafe.
            ConfigError: An unknown device, dtype or quantisation, two that do not go together, or heads that
                so many processes cannot share.
            CapacityError: The network cannot fit the memory of the GPU.
        """
        folder = found_checkpoint(name)
        processor = LlavaNextVideoProcessor.from_pretrained(folder)
        network = load_network(
            folder,
            processor,
            device=device,
            dtype=dtype,
            quantize=quantize,
            rope_factor=rope_factor,
            reference=reference,
            adapter=adapter,
            kv_bytes=kv_bytes,
            kv_dtype=kv_dtype,
            tensor_parallel=tensor_parallel,
        )
        return cls(network, processor, limits=limits)

    def __enter__(self) -> VideoAssistant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that share the network, if any do (`tensor_parallel`); it answers no more."""
        if isinstance(self.network, Engine):
            self.network.close()

    def ask(
        self,
        media: Medium | Sequence[Medium],
        question: str,
        **wishes: Unpack[Wishes],
    ) -> Answer:
        """Answer one question about one medium or several.

        Raises:
            MediaError: A medium cannot be read.
            PromptError: The question is no text.
            CapacityError: Prompt and answer do not fit the model's context.
            SamplingError: An unknown or impossible generation setting.
        """
        reader, options = self._read(wishes)
        return next(self._asking.answers([partial(reader.asked, media, question)], options))

    def ask_many(
        self,
        questions: Iterable[tuple[Medium | Sequence[Medium], str]],
        **wishes: Unpack[Wishes],
    ) -> Iterator[Answer]:
        """Answers in the order of the questions, each a pair of its media and its text.

        Nothing happens before the first answer is asked for. The questions are answered together, as many as
        the network takes, while the next media are read. An error is raised in the place of its answer; later
        questions are then given up.
        """
        reader, options = self._read(wishes)
        prompts = (
            partial(reader.asked_pair, pair, f"question {number}") for number, pair in enumerate(questions)
        )
        return self._asking.answers(prompts, options)

    def chat(
        self,
        messages: object,
        **wishes: Unpack[Wishes],
    ) -> Answer:
        """The assistant's next turn in a conversation, spelled as Hugging Face, OpenAI or LLaVA do.

        A clip is a part of the content, `{"type": "video", "path": "clip.mp4"}`; in LLaVA's spelling it
        stands beside the text, `{"from": "human", "value": "<video>\\nWhat moves?", "video": "clip.mp4"}`.

        Raises:
            PromptError: The messages cannot be read, or the last one is not the user's.
        """
        reader, options = self._read(wishes)
        return next(self._asking.answers([partial(reader.chatted, messages)], options))

    def chat_each(
        self,
        conversations: Iterable[object],
        **wishes: Unpack[Wishes],
    ) -> Iterator[Answer | LlavaNextVideoError]:
        """The assistant's next turn in each of many conversations, in their order.

        They are answered together, as `ask_many` does; an error stands in the place of its answer, and the
        conversations after it go on.
        """
        reader, options = self._read(wishes)
        prompts = (partial(reader.chatted, messages) for messages in conversations)
        return self._asking.outcomes(prompts, options)

    def stream(
        self,
        media: Medium | Sequence[Medium],
        question: str,
        **wishes: Unpack[Wishes],
    ) -> Iterator[str]:
        """The pieces of an answer as they are written; joined they are the text that `ask` gives.

        Closing the iterator stops the answer.
        """
        reader, options = self._read(wishes)
        prompt = partial(reader.asked, media, question)
        with closing(self._asking.stream(prompt, options)) as events:
            yield from (event for event in events if isinstance(event, str))

    def stream_chat(
        self,
        messages: object,
        **wishes: Unpack[Wishes],
    ) -> Generator[str | Answer]:
        """The pieces of the assistant's next turn as they are written, then the whole answer.

        Closing the iterator stops the answer.
        """
        reader, options = self._read(wishes)
        prompt = partial(reader.chatted, messages)
        yield from self._asking.stream(prompt, options)

    def _read(self, wishes: Wishes) -> tuple[Reader, SamplingOptions]:
        return read_wishes(wishes, self.processor, self.limits)
