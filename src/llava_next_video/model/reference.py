"""An answer, id by id, from the reference network.

Knows ids and pixels; turning ids into text, and cutting at stop strings, is for whoever asks.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.generation import BaseStreamer

from llava_next_video.inputs import ModelInputs, padded_batch
from llava_next_video.long_video import ClipLayout, RopeScaling
from llava_next_video.model.rope import rope_scaled


class _Queue(BaseStreamer):
    """Hands on the ids that `generate` chooses; the first thing it is given is the prompt."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[list[int] | BaseException | None] = queue.SimpleQueue()
        self._prompt_seen = False

    def put(self, value: Tensor) -> None:
        if self._prompt_seen:
            self.items.put(value.flatten().tolist())
        self._prompt_seen = True

    def end(self) -> None:
        """`generate` is done; the worker says so itself, after errors too."""


class _Left(StoppingCriteria):
    """Stops `generate` once nobody waits for its ids."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def answer_ids(
    model: PreTrainedModel,
    inputs: ModelInputs,
    config: GenerationConfig,
    *,
    seed: int | None = None,
    rope: RopeScaling | None = None,
) -> Generator[int]:
    """The ids of one answer as `model.generate` chooses them, end token included.

    `generate` runs in a thread of its own; closing the iterator ends it after the token it is at. Errors of
    `generate` are raised here. With a `seed`, sampling is repeatable as long as nothing else draws from
    torch's default generator meanwhile. `rope` is how the positions are scaled; None: as the model does.
    """
    stream, left = _Queue(), _Left()

    def work() -> None:
        try:
            if seed is not None:
                torch.manual_seed(seed)
            with rope_scaled(model, rope):
                model.generate(
                    **_on(model, inputs, config),
                    generation_config=config,
                    streamer=stream,
                    stopping_criteria=StoppingCriteriaList([left]),
                )
            stream.items.put(None)
        except BaseException as error:
            stream.items.put(error)

    worker = threading.Thread(target=work, name="generate", daemon=True)
    worker.start()
    try:
        while (item := stream.items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield from item
    finally:
        left.event.set()
        worker.join()


def _on(model: PreTrainedModel, inputs: ModelInputs, config: GenerationConfig) -> dict[str, object]:
    """The arguments of `generate` on the model's device, pixels in its number format."""
    batch: dict[str, object] = {}
    for name, value in padded_batch([inputs], pad_token_id=config.pad_token_id or 0).items():
        if isinstance(value, list):
            batch[name] = [clip.to(model.device, model.dtype) for clip in value]
        else:
            batch[name] = value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
    layouts = [medium.layout for medium in inputs.media if medium.kind == "video"]
    return _encoded(model, batch, layouts) if any(layouts) else batch


@torch.no_grad()
def _encoded(model: Any, batch: dict[str, object], layouts: Sequence[ClipLayout | None]) -> dict[str, object]:
    """The same with visual tokens in place of pixels, as `generate` lays out clips by the config alone."""
    clips = batch.pop("pixel_values_videos")
    seen = {"video": model.get_video_features(clips, return_dict=True, clip_layouts=layouts)}
    if "pixel_values" in batch:
        pictures, sizes = batch.pop("pixel_values"), batch.pop("image_sizes")
        seen["image"] = model.get_image_features(pictures, sizes, return_dict=True)
    return {**batch, "mm_encoder_outputs": seen}
