"""How fast the features of a head turn, under every scaling of positions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedConfig

from llava_next_video.long_video import RopeScaling
from llava_next_video.model.configuration import head_width
from llava_next_video.model.context import with_kind, with_rope


def scaled_rotary(rotary: Callable[[Any], Any], text: PreTrainedConfig, rope: RopeScaling) -> Any:
    """transformers' rotary embedding, of that class, for a text config whose positions are scaled so.

    Its `inv_freq` and `attention_scaling` hold for every position. Those of transformers' own `dynamic`
    change while an answer grows, and leave keys behind that were turned otherwise; ours are those of the
    longest prompt and answer that the factor makes room for.

    Raises:
        ConfigError: The positions are scaled in another way already.

    Source: transformers, `modeling_rope_utils.py`; the base of `dynamic` is that of
    `_compute_dynamic_ntk_parameters` for a sequence of factor times the trained positions.
    """
    rope = with_kind(text, rope)
    longer = with_rope(text, rope)
    if rope.kind == "dynamic":
        own = longer.rope_parameters
        width = head_width(text)
        base = own["rope_theta"] * (rope.factor or 1.0) ** (width / (width - 2))
        longer.rope_parameters = {"rope_type": "default", "rope_theta": base}
    return rotary(longer)


@contextmanager
def rope_scaled(model: Any, rope: RopeScaling | None) -> Iterator[None]:
    """The reference network with its positions scaled so until the block ends; None: as it is.

    Nothing else may use the network meanwhile.

    Raises:
        ConfigError: The positions are scaled in another way already.
    """
    if rope is None:
        yield
        return
    config, language_model = model.config, model.model.language_model
    own_text, own_rotary = config.text_config, language_model.rotary_emb
    config.text_config = with_rope(copy.copy(own_text), rope)
    scaled = scaled_rotary(type(own_rotary), own_text, rope)
    language_model.rotary_emb = scaled.to(own_rotary.inv_freq.device)
    try:
        yield
    finally:
        config.text_config, language_model.rotary_emb = own_text, own_rotary
