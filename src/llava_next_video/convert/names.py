"""Names of the weights in the original release and on the hub.

    original  model.layers.*               hub  language_model.model.layers.*
              lm_head.*                         language_model.lm_head.*
              model.vision_tower.vision_tower.vision_model.*  vision_tower.vision_model.*
              model.mm_projector.0, .2          multi_modal_projector.linear_1, .linear_2
              model.image_newline               image_newline
              model.faster_token                faster_token  (slow-fast only)
              model.vision_resampler.pool.*     model.vision_resampler.pool.*  (conv pooling only)

Knows names only: no files, no tensors.
"""

from __future__ import annotations

_PAIRS = (
    ("model.vision_tower.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", "image_newline"),
    ("model.faster_token", "faster_token"),
    ("model.vision_resampler.pool.", "model.vision_resampler.pool."),
    ("model.embed_tokens.", "language_model.model.embed_tokens."),
    ("model.layers.", "language_model.model.layers."),
    ("model.norm.", "language_model.model.norm."),
    ("lm_head.", "language_model.lm_head."),
)
"""How a name starts in the original release, and on the hub."""


def to_hub(key: str) -> str | None:
    """The name on the hub of a weight of the original release; None if LLaVA-NeXT-Video has no such weight.

    >>> to_hub("model.mm_projector.2.weight")
    'multi_modal_projector.linear_2.weight'
    >>> to_hub("model.mm_projector.4.weight") is None
    True

    Source: transformers, `convert_llava_next_video_weights_to_hf.py`, `KEYS_TO_MODIFY_MAPPING`.
    """
    for original, hub in _PAIRS:
        if key.startswith(original):
            return hub + key.removeprefix(original)
    return None


def to_original(key: str) -> str | None:
    """The name in the original release of a weight named as on the hub; None if it has no place there.

    >>> to_original("vision_tower.vision_model.pre_layrnorm.bias")
    'model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias'
    """
    for original, hub in _PAIRS:
        if key.startswith(hub):
            return original + key.removeprefix(hub)
    return None
