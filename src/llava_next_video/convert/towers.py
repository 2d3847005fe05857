"""Which vision tower stands in a checkpoint, told by its weights.

The original's config.json has the tower's name alone. A name may be a path on a machine long gone, so the
shapes of the weights are looked at; only what they cannot tell (heads, activation) comes from a table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from transformers import CLIPVisionConfig, PreTrainedConfig, SiglipVisionConfig

from llava_next_video.errors import CheckpointError

TowerKind = Literal["clip", "siglip"]
Shapes = Mapping[str, tuple[int, ...]]

TOWER = "vision_tower.vision_model."
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_SIDE = "patches a side"  # the pixels are not told: SigLIP's 384 leave 6 over

KNOWN: Mapping[str, dict[str, Any]] = {
    # Source: the config.json of openai/clip-vit-large-patch14-336.
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
    # Source: LLaVA-NeXT, `multimodal_encoder/siglip_encoder.py`, `SigLipVisionConfig`.
    "google/siglip-so400m-patch14-384": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
}
"""Towers by the name that the original's config.json has for them."""


def tower_kind(shapes: Shapes) -> TowerKind:
    """CLIP puts a class token before the patches, SigLIP does not."""
    return "clip" if f"{TOWER}embeddings.class_embedding" in shapes else "siglip"


def tower_config(
    shapes: Shapes, told: Mapping[str, Any] | None = None
) -> tuple[PreTrainedConfig, int | None]:
    """The config of the tower that these weights are, and which of its hidden states LLaVA looks at.

    The original cuts SigLIP's last layer off and takes what comes out of the one before, whatever
    `mm_vision_select_layer` says: its weights usually have a layer less than the tower had, and their last is
    meant. For CLIP it is None, because that setting decides.

    Args:
        shapes: Of all weights, named as on the hub.
        told: The tower's own config.json, for towers that are not in `KNOWN`.

    Raises:
        CheckpointError: no tower in the weights, or one whose heads and activation nobody told.

    Source: LLaVA-NeXT, `multimodal_encoder/siglip_encoder.py`, `SigLipVisionTower.load_model` and `forward`.
    """
    found = _measured(shapes)
    kind = tower_kind(shapes)
    candidates = [told] if told is not None else list(KNOWN.values())
    for about in candidates:
        about = about.get("vision_config") or about
        if _fits(about, found):
            break
    else:
        where = "the given config.json" if told is not None else f"the towers known here ({', '.join(KNOWN)})"
        raise CheckpointError(
            f"the vision tower of the weights ({_listed(found)}) is none of {where}; "
            "give its own config.json (--tower-config)"
        )
    whole, stored = int(about["num_hidden_layers"]), found["num_hidden_layers"]
    settings = {key: value for key, value in about.items() if key not in ("model_type", "architectures")}
    if kind == "clip":
        return CLIPVisionConfig(**settings), None
    config = SiglipVisionConfig(**settings | {"num_hidden_layers": stored, "vision_use_head": False})
    return config, whole - 2 - stored


def tower_name(config: PreTrainedConfig) -> str | None:
    """The name that the original has for a tower, or None for one that it does not know."""
    for name, about in KNOWN.items():
        if all(getattr(config, key) == value for key, value in about.items() if key != "num_hidden_layers"):
            return name
    return None


def _measured(shapes: Shapes) -> dict[str, int]:
    """What the shapes of a tower's weights tell."""
    patch = shapes.get(f"{TOWER}embeddings.patch_embedding.weight")
    positions = shapes.get(f"{TOWER}embeddings.position_embedding.weight")
    inner = shapes.get(f"{TOWER}encoder.layers.0.mlp.fc1.weight")
    if patch is None or positions is None or inner is None:
        raise CheckpointError(
            "the weights have no vision tower (model.vision_tower.*); a checkpoint without its own is not "
            "supported"
        )
    layers = {int(match[1]) for name in shapes if name.startswith(TOWER) and (match := _LAYER.search(name))}
    side = math.isqrt(positions[0] - (tower_kind(shapes) == "clip"))
    return {
        "hidden_size": patch[0],
        "patch_size": patch[-1],
        _SIDE: side,
        "intermediate_size": inner[0],
        "num_hidden_layers": len(layers),
    }


def _fits(about: Mapping[str, Any], found: Mapping[str, int]) -> bool:
    """Whether a tower's config is of that shape, however many of its layers are there."""
    told = dict(about) | {_SIDE: about["image_size"] // about["patch_size"]}
    return all(told.get(key) == value for key, value in found.items() if key != "num_hidden_layers")


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found.items())
