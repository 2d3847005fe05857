"""LLaVA-NeXT-Video: ask questions about videos.

The public names, loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig, LlamaConfig

    from llava_next_video.assistant import Answer, VideoAssistant
    from llava_next_video.errors import (
        CapacityError,
        CheckpointError,
        ConfigError,
        DataError,
        LlavaNextVideoError,
        MediaError,
        MediaLimitError,
        MissingExtraError,
        PromptError,
        SamplingError,
    )
    from llava_next_video.long_video import ClipLayout, RopeScaling, SlowFast
    from llava_next_video.media import Sampling
    from llava_next_video.model import (
        LlavaNextVideoCausalLMOutputWithPast,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoModel,
        LlavaNextVideoPreTrainedModel,
    )
    from llava_next_video.processing import (
        AutoProcessor,
        LlavaNextImageProcessor,
        LlavaNextVideoImageProcessor,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )
    from llava_next_video.registration import register

_HOMES = {
    "llava_next_video.assistant": ("Answer", "VideoAssistant"),
    "llava_next_video.errors": (
        "CapacityError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "LlavaNextVideoError",
        "MediaError",
        "MediaLimitError",
        "MissingExtraError",
        "PromptError",
        "SamplingError",
    ),
    "llava_next_video.long_video": ("ClipLayout", "RopeScaling", "SlowFast"),
    "llava_next_video.media": ("Sampling",),
    "llava_next_video.model": (
        "LlavaNextVideoCausalLMOutputWithPast",
        "LlavaNextVideoConfig",
        "LlavaNextVideoForConditionalGeneration",
        "LlavaNextVideoModel",
        "LlavaNextVideoPreTrainedModel",
    ),
    "llava_next_video.processing": (
        "AutoProcessor",
        "LlavaNextImageProcessor",
        "LlavaNextVideoImageProcessor",
        "LlavaNextVideoProcessor",
        "LlavaNextVideoVideoProcessor",
    ),
    "llava_next_video.registration": ("register",),
    # Examples of the documentation import these two beside the classes above.
    "transformers": ("CLIPVisionConfig", "LlamaConfig"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "AutoProcessor",
    "CLIPVisionConfig",
    "CapacityError",
    "CheckpointError",
    "ClipLayout",
    "ConfigError",
    "DataError",
    "LlamaConfig",
    "LlavaNextImageProcessor",
    "LlavaNextVideoCausalLMOutputWithPast",
    "LlavaNextVideoConfig",
    "LlavaNextVideoError",
    "LlavaNextVideoForConditionalGeneration",
    "LlavaNextVideoImageProcessor",
    "LlavaNextVideoModel",
    "LlavaNextVideoPreTrainedModel",
    "LlavaNextVideoProcessor",
    "LlavaNextVideoVideoProcessor",
    "MediaError",
    "MediaLimitError",
    "MissingExtraError",
    "PromptError",
    "RopeScaling",
    "Sampling",
    "SamplingError",
    "SlowFast",
    "VideoAssistant",
    "register",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
