"""The model on this machine, behind one engine thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llava_next_video.assistant import EngineThread, Ticket, VideoAssistant
from llava_next_video.assistant.loading import found_checkpoint
from llava_next_video.assistant.options import options_from
from llava_next_video.caption.cores import Cores
from llava_next_video.caption.items import Item
from llava_next_video.caption.outcome import DescriberGoneError, Model, Said, Seen, Tell
from llava_next_video.caption.seeing import see_frames
from llava_next_video.data.decoder import Decoder
from llava_next_video.engine import Engine, Output, SamplingOptions
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.inputs import ModelInputs
from llava_next_video.media import Clip, Sampling
from llava_next_video.messages import Video, user
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.fingerprint import whole_fingerprint
from llava_next_video.processing import LlavaNextVideoProcessor

_IN_IDENTITY = ("dtype", "quantize", "kv_dtype")
# Each video comes once: features kept for a second question would only fill memory.
KEPT_FEATURES = 16 << 20


class LocalModel:
    """The model of an assistant, behind one engine thread."""

    def __init__(
        self,
        assistant: VideoAssistant,
        *,
        sampling: Sampling,
        options: SamplingOptions,
        look: bool = False,
        at_once: int = 64,
    ) -> None:
        """The assistant's network is ours from now on; `look` draws what near duplicates are found by."""
        self.at_once = at_once
        self._processor = assistant.processor
        self._sampling = sampling
        self._options = options
        self._look = look
        if isinstance(assistant.network, Engine):
            assistant.network.features.limit_bytes = KEPT_FEATURES
        self._cores = Cores()
        self._thread = EngineThread(assistant.network, before_step=self._cores.share)

    def see(self, item: Item, decoder: Decoder) -> Seen:
        """Decode the sampled frames."""
        with self._cores.one_taken():
            return see_frames(item, decoder, self._sampling, look=self._look)

    def ask(self, item: Item, seen: Seen, tell: Tell) -> None:
        """Hand prompt and pixels to the engine; the frames are needed no more."""
        assert isinstance(seen.content, Clip)
        self.submit(prepare(self._processor, item.prompt, seen.content), tell)

    def submit(self, inputs: ModelInputs, tell: Tell) -> None:
        """Ask with inputs that were prepared elsewhere.

        Raises:
            DescriberGoneError: The engine has crashed.
        """
        answer = _Answer(self, inputs.visual_tokens, tell)
        try:
            answer.ticket = self._thread.submit(inputs, self._options, answer)
        except LlavaNextVideoError as error:
            raise DescriberGoneError(str(error)) from error

    def text(self, ids: list[int]) -> str:
        """The words of an answer."""
        return str(self._processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    @property
    def alive(self) -> bool:
        """Whether the engine runs."""
        return self._thread.alive

    def close(self) -> None:
        """Drop what is under way."""
        self._thread.close()
        self._cores.give_back()


class _Answer:
    """Gathers the ids of one answer, in the engine's thread."""

    def __init__(self, model: LocalModel, visual_tokens: int, tell: Tell) -> None:
        self.model = model
        self.visual_tokens = visual_tokens
        self.tell = tell
        self.ids: list[int] = []
        self.ticket: Ticket | None = None

    def __call__(self, output: Output) -> None:
        self.ids.extend(output.ids)
        if output.finish is None:
            return
        if output.finish not in ("stop", "length"):
            told = output.error or f"the engine ended the answer ({output.finish})"
            gone = output.finish == "abort" or not self.model.alive
            refusal = self.ticket.refusal if self.ticket is not None else None
            known = type(refusal) if isinstance(refusal, LlavaNextVideoError) else LlavaNextVideoError
            self.tell(DescriberGoneError(told) if gone else known(told))
            return
        timings = output.timings
        started_s = timings.started_s or timings.arrived_s
        self.tell(
            Said(
                caption=self.model.text(self.ids),
                finish_reason="length" if output.finish == "length" else "stop",
                prompt_tokens=output.prompt_tokens,
                visual_tokens=self.visual_tokens,
                cached_tokens=output.cached_tokens,
                completion_tokens=output.completion_tokens,
                wait_ms=round(1000 * (started_s - timings.arrived_s), 1),
                generate_ms=round(1000 * ((timings.finished_s or started_s) - started_s), 1),
            )
        )


def prepare(processor: LlavaNextVideoProcessor, prompt: str, clip: Clip) -> ModelInputs:
    """A question about a clip with its pixels made, so that frames of any size can be dropped."""
    inputs = processor.prepare((user(prompt, [Video(source=clip)]),), (clip,))
    return replace(inputs, media=tuple(replace(medium, pixels=medium.load()) for medium in inputs.media))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a local model is made; it can be sent to other machines, which see the same folders.

    Attributes:
        checkpoint: Folder, or name on the hub.
        weights: `device`, `dtype`, `quantize`, `adapter`, `kv_bytes`, `kv_dtype` and `tensor_parallel`, as
            `VideoAssistant.load` takes them.
    """

    checkpoint: str
    weights: Mapping[str, str | int | None]
    sampling: Sampling
    options: SamplingOptions
    look: bool = False

    def load(self) -> LocalModel:
        """The model, with its weights."""
        assistant = VideoAssistant.load(self.checkpoint, **self.weights)  # type: ignore[arg-type]
        return LocalModel(assistant, sampling=self.sampling, options=self.options, look=self.look)

    def processor(self) -> LlavaNextVideoProcessor:
        """What makes prompts for it, without weights."""
        return LlavaNextVideoProcessor.from_pretrained(self.checkpoint)


def local_model(
    model: str | None,
    weights: Mapping[str, str | int | None],
    prompt: str,
    sampling: Sampling,
    options: Mapping[str, object],
    *,
    look: bool = False,
) -> tuple[Model, Recipe]:
    """A checkpoint (by default the package's own) as a describer, and how it is made.

    Args:
        model: Folder, or name on the hub.
        weights: `device`, `dtype`, `quantize`, `adapter`, `kv_bytes`, `kv_dtype` and `tensor_parallel`, as
            `VideoAssistant.load` takes them.
        prompt: What is asked; it stands in the identity only.
        sampling: Which moments the model sees.
        options: Generation settings by name.
        look: Draw what near duplicates are found by.
    """
    folder, adapter = found_checkpoint(model), weights.get("adapter")
    if adapter is not None:
        Adapter.read(Path(str(adapter)))  # refused before anything is written
    recipe = Recipe(
        checkpoint=str(model or folder),
        weights=weights,
        sampling=sampling,
        options=options_from(options),
        look=look,
    )
    identity = {
        "weights": whole_fingerprint(folder),
        **({} if adapter is None else {"adapter": whole_fingerprint(Path(str(adapter)))}),
        **{name: value for name, value in weights.items() if name in _IN_IDENTITY},
        "prompt": prompt,
        "sampling": dataclasses.asdict(sampling),
        "options": dict(options),
    }
    return Model(name="tiny" if model is None else model, identity=identity, load=recipe.load), recipe
