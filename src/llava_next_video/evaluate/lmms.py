"""Our engine as a model of lmms-eval, found by entry point.

Needs lmms-eval, which needs nothing of ours: `pip install lmms-eval` beside this package, then
`python -m lmms_eval --model llava_next_video --model_args pretrained=...`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from lmms_eval.protocol import ChatMessages

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import ConfigError, LlavaNextVideoError
from llava_next_video.media import Sampling

NAME = "llava_next_video"
LOADED = ("device", "dtype", "quantize", "adapter")
OTHERWISE = ("image_aspect_ratio", "use_cache")
"""Settings of tasks that are for other models: our checkpoint says how pictures are cut."""


def manifest() -> ModelManifest:
    """What the entry point `lmms_eval.models` gives."""
    return ModelManifest(model_id=NAME, chat_class_path=f"{__name__}.{LmmsModel.__name__}")


class LmmsModel(lmms):
    """Answers all requests of a task together; the engine takes as many at once as fit."""

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        *,
        num_frames: int | str = 8,
        sampler: str | None = None,
        fps: float | str | None = None,
        rope_factor: float | str | None = None,
        batch_size: int | str = 1,
        **loaded: Any,
    ) -> None:
        """Load a checkpoint; lmms-eval's `--model_args` come in as text.

        Args:
            pretrained: Checkpoint folder, or name on the hub; by default the package's own tiny one.
            num_frames: Frames of a clip; with `fps` the most that are taken.
            sampler: `uniform` (the default), `linspace`, or `fps` (the default with `fps`).
            fps: Frames a second.
            rope_factor: Stretch the context that many times.
            batch_size: 1: the engine makes its own batches.
            loaded: `device`, `dtype`, `quantize`, `adapter`, as `VideoAssistant.load` has them.

        Raises:
            ConfigError: An unknown argument, or one that would be ignored.
        """
        super().__init__()
        unknown = sorted(set(loaded) - {*LOADED, "max_batch_size"})
        if unknown:
            known = ("pretrained", "num_frames", "sampler", "fps", "rope_factor", *LOADED)
            raise ConfigError(f"unknown model_args {', '.join(unknown)}; known: {', '.join(known)}")
        if str(batch_size) != "1" or loaded.pop("max_batch_size", None) is not None:
            raise ConfigError("leave --batch_size at 1: the engine takes as many requests at once as fit")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "several processes were launched; start one, or `evaluate run --shard` for more"
            )
        self.sampling = Sampling(
            how=sampler or ("uniform" if fps is None else "fps"),  # type: ignore[arg-type]  # refuses others
            frames=int(num_frames),
            per_second=None if fps is None else float(fps),
        )
        self.assistant = VideoAssistant.load(
            pretrained, rope_factor=None if rope_factor is None else float(rope_factor), **loaded
        )

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The answers in the order of the requests.

        Raises:
            LlavaNextVideoError: A video that cannot be read, or a prompt that does not fit: lmms-eval would
                score an empty answer as wrong, so nothing is scored.
        """
        by_settings: dict[tuple[tuple[str, Any], ...], list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            by_settings[tuple(sorted(settings_of(request.args[2]).items()))].append(number)
        answers: dict[int, str] = {}
        for settings, numbers in by_settings.items():
            conversations = (self._conversation(requests[number]) for number in numbers)
            told = self.assistant.chat_each(conversations, frames=self.sampling, **dict(settings))
            for number, answer in zip(numbers, told, strict=True):
                if isinstance(answer, LlavaNextVideoError):
                    raise answer
                answers[number] = answer.text
                self.cache_hook.add_partial("generate_until", requests[number].args[:1], answer.text)
        return [answers[number] for number in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refused: the engine gives the words, not the likelihood of others."""
        raise ConfigError("tasks by likelihood (`_mcppl`) are not supported; take the task that generates")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused: no video task of lmms-eval has several rounds."""
        raise ConfigError("tasks of several rounds are not supported; ask through the server instead")

    def _conversation(self, request: Instance) -> list[dict[str, Any]]:
        _, doc_to_messages, _, number, task, split = request.args
        messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][number]))
        told: list[dict[str, Any]] = messages.to_hf_messages()
        for part in (part for message in told for part in message["content"] if isinstance(part, dict)):
            if part["type"] == "audio" or {"video_start", "video_end"} & part.keys():
                raise ConfigError(
                    f"{task}: sound and parts of videos are not supported; cut the videos first"
                )
        return told


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a task in our words.

    Raises:
        ConfigError: One that we do not honour.
    """
    wanted = {key: value for key, value in given.items() if key not in OTHERWISE and value is not None}
    until = wanted.pop("until", ())
    beams, samples = wanted.pop("num_beams", 1), wanted.pop("do_sample", None)
    settings: dict[str, Any] = {
        "max_new_tokens": int(wanted.pop("max_new_tokens", 1024)),
        "temperature": float(wanted.pop("temperature", 0)) if samples is not False else 0.0,
        "top_p": float(wanted.pop("top_p", 1.0)),
        "stop": (until,) if isinstance(until, str) else tuple(until),
    }
    wanted.pop("temperature", None)
    if wanted or beams != 1:
        named = ", ".join((*sorted(wanted), *(["num_beams"] if beams != 1 else [])))
        raise ConfigError(f"the task asks for {named}, which the engine does not do; override it in the task")
    return settings
