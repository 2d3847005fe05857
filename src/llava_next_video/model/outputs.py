"""What the network returns.

The first field of each record may also be given a dict of all of them, as accelerate does: hence its type.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput


@dataclass
class LlavaNextVideoModelOutputWithPast(ModelOutput):
    """The output without a language head.

    Attributes:
        last_hidden_state: batch x length x width.
        past_key_values: The cache, when one is used.
        hidden_states: Embeddings and the output of each layer, when asked for.
        attentions: Weights of each layer, when asked for.
        image_hidden_states: Visual tokens of all images, one after the other: tokens x width.
        video_hidden_states: Visual tokens of all clips, one after the other: tokens x width.
    """

    last_hidden_state: Any = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor | None, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None
    video_hidden_states: Tensor | None = None


@dataclass
class LlavaNextVideoCausalLMOutputWithPast(ModelOutput):
    """The output with a language head.

    Attributes:
        loss: Mean cross entropy of the next token, when labels are given.
        logits: batch x length x vocabulary.
        past_key_values: The cache, when one is used.
        hidden_states: Embeddings and the output of each layer, when asked for.
        attentions: Weights of each layer, when asked for.
        image_hidden_states: Visual tokens of all images, one after the other: tokens x width.
        video_hidden_states: Visual tokens of all clips, one after the other: tokens x width.
    """

    loss: Any = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor | None, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    image_hidden_states: Tensor | None = None
    video_hidden_states: Tensor | None = None
