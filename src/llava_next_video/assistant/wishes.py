"""What may be said beside a question: how to look, and how to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from llava_next_video.assistant.options import options_from
from llava_next_video.assistant.reading import Reader
from llava_next_video.engine import SamplingOptions
from llava_next_video.engine.sampling_options import Guide
from llava_next_video.long_video import ClipLayout, RopeScaling, read_layout, read_rope
from llava_next_video.media import Limits, Sampling
from llava_next_video.processing import LlavaNextVideoProcessor

Rope = RopeScaling | int | float | Literal["auto"] | None


class Look(TypedDict, total=False):
    """How to look at the media of a question; `VideoAssistant` says what each does."""

    frames: Sampling | int | None
    max_visual_tokens: int | None
    rope: Rope
    layout: ClipLayout | None
    time_instruction: bool


class Wishes(Look, total=False):
    """A look, and the fields of `SamplingOptions`."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    logit_bias: Mapping[int, float]
    logprobs: int | None
    n: int
    ignore_eos: bool
    guide: Guide | None


def read_wishes(
    wishes: Wishes, processor: LlavaNextVideoProcessor, limits: Limits
) -> tuple[Reader, SamplingOptions]:
    """Who reads the media of a question, and how its answer is chosen.

    Raises:
        ConfigError: Media cannot be looked at so.
        SamplingError: An unknown name, or an impossible setting.
    """
    reader = Reader(
        processor=processor,
        limits=limits,
        frames=wishes.get("frames"),
        max_visual_tokens=wishes.get("max_visual_tokens"),
        rope=read_rope(wishes.get("rope")),
        layout=read_layout(wishes.get("layout")),
        time_instruction=wishes.get("time_instruction", False),
    )
    return reader, options_from({name: value for name, value in wishes.items() if name not in _LOOKS})


_LOOKS = Look.__optional_keys__
