"""Shapes of checkpoints that can be made without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PresetName = Literal["tiny", "mid", "7b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The shape of a LLaVA-NeXT-Video network; widths in features, image and patch sides in pixels."""

    image: int
    patch: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_inner: int
    text_width: int
    text_layers: int
    text_heads: int
    text_key_value_heads: int
    text_inner: int
    vocabulary: int
    positions: int
    rope_factor: float | None


PRESETS: Mapping[PresetName, Preset] = {
    "tiny": Preset(
        image=56,
        patch=14,
        vision_width=64,
        vision_layers=3,
        vision_heads=4,
        vision_inner=128,
        text_width=64,
        text_layers=2,
        text_heads=4,
        text_key_value_heads=2,
        text_inner=128,
        vocabulary=1024,
        positions=4096,
        rope_factor=None,
    ),
    "mid": Preset(
        image=336,
        patch=14,
        vision_width=768,
        vision_layers=12,
        vision_heads=12,
        vision_inner=3072,
        text_width=576,
        text_layers=30,
        text_heads=9,
        text_key_value_heads=3,
        text_inner=1536,
        vocabulary=49152,
        positions=8192,
        rope_factor=None,
    ),
    # Source: the config.json of llava-hf/LLaVA-NeXT-Video-7B-hf (CLIP ViT-L/14-336, Vicuna-7B v1.5).
    "7b": Preset(
        image=336,
        patch=14,
        vision_width=1024,
        vision_layers=24,
        vision_heads=16,
        vision_inner=4096,
        text_width=4096,
        text_layers=32,
        text_heads=32,
        text_key_value_heads=32,
        text_inner=11008,
        vocabulary=32064,
        positions=4096,
        rope_factor=2.5,
    ),
}
