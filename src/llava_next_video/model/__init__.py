"""The reference network, on transformers' bases."""

from llava_next_video.model.configuration import LlavaNextVideoConfig
from llava_next_video.model.context import context_limit, with_rope_factor
from llava_next_video.model.generation import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.modeling import LlavaNextVideoModel
from llava_next_video.model.outputs import (
    LlavaNextVideoCausalLMOutputWithPast,
    LlavaNextVideoModelOutputWithPast,
)
from llava_next_video.model.pretrained import LlavaNextVideoPreTrainedModel

__all__ = [
    "LlavaNextVideoCausalLMOutputWithPast",
    "LlavaNextVideoConfig",
    "LlavaNextVideoForConditionalGeneration",
    "LlavaNextVideoModel",
    "LlavaNextVideoModelOutputWithPast",
    "LlavaNextVideoPreTrainedModel",
    "context_limit",
    "with_rope_factor",
]
