"""Names of the weights in the four layouts found on disk.

    A  hub (conversion script, transformers 4.42-4.57)  language_model.model.*  vision_tower.vision_model.*
    B  transformers 5, saved from a fresh model         language_model.model.*  vision_tower.*
    C  in memory, transformers 4.52-4.57         model.language_model.*  model.vision_tower.vision_model.*
    D  in memory, transformers 5, and here       model.language_model.*  model.vision_tower.*

Knows names only: no files, no tensors.
"""

import re

RECOMPUTED = re.compile(r"(position_ids|rotary_emb\.inv_freq)$")
"""Buffers that older versions saved and every network computes for itself."""

RENAMES: dict[str, str] = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.language_model.",
    r"^vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^vision_tower\.": "model.vision_tower.",
    r"^multi_modal_projector\.": "model.multi_modal_projector.",
    r"^vision_resampler\.": "model.vision_resampler.",
    r"^image_newline$": "model.image_newline",
    r"^faster_token$": "model.faster_token",
}
"""Regular expressions that turn a key of any layout into layout D, tried in this order."""

_TO_HUB = (
    ("lm_head.", "language_model.lm_head."),
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("model.faster_token", "faster_token"),
)


def in_memory(key: str) -> str:
    """The name in layout D of a weight named in any of the four layouts.

    >>> in_memory("language_model.model.layers.0.mlp.up_proj.weight")
    'model.language_model.layers.0.mlp.up_proj.weight'
    >>> in_memory("model.vision_tower.vision_model.pre_layrnorm.bias")
    'model.vision_tower.pre_layrnorm.bias'
    """
    for pattern, replacement in RENAMES.items():
        renamed = re.sub(pattern, replacement, key)
        if renamed != key:
            return renamed
    return key


def on_hub(key: str) -> str:
    """The name in layout A of a weight named in layout D.

    The weights of a convolutional pooler keep their name: transformers 5 looks for them there.

    >>> on_hub("model.vision_tower.pre_layrnorm.bias")
    'vision_tower.vision_model.pre_layrnorm.bias'
    >>> on_hub("lm_head.weight")
    'language_model.lm_head.weight'
    """
    for prefix, replacement in _TO_HUB:
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    return key
