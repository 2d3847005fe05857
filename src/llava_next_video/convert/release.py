"""The config.json of the original release: read into settings, and written again."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config

from llava_next_video.convert.registry import Family, Shape
from llava_next_video.convert.towers import TowerKind, tower_name
from llava_next_video.errors import CheckpointError
from llava_next_video.model import LlavaNextVideoConfig

ARCHITECTURES: Mapping[str, Family] = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
TEXT_CLASSES: Mapping[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
}
OWN_TOWER = "tower_config.json"
"""Where the config of a vision tower stands that the original knows no name for."""

_GRIDS = re.compile(r"\((\d+)x(\d+)\)")
_LIMITED = re.compile(r"anyres_max_(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What the config.json of the original release says; None: nothing.

    Attributes:
        folder: Where it stands.
        family: Of the text network.
        text: The text network's settings, as its class takes them.
        scaled_in_vain: The file scales the positions, and the original ignores that for this family.
        vision_feature_layer: Which hidden state of a CLIP tower is looked at.
        pinpoints: Canvases as (width, height) in pixels, or as a range of grids.
        tile_limit: Tiles' worth of patches that a picture keeps at most.
        video_newline: Where newlines stand in a clip.
        add_faster_video: Clips are slow-fast, each frame of which a learned token ends.
        faster_token_stride: Which frames of these are slow: each so-many-th.
        pool_before_projector: Frames are pooled, then projected.
        spatial_pool_mode: How frames are pooled.
        spatial_pool_stride: Patches a side that become one.
    """

    folder: Path
    family: Family
    text: Mapping[str, Any]
    scaled_in_vain: bool
    vision_feature_layer: int
    pinpoints: object
    tile_limit: int | None
    video_newline: str | None
    add_faster_video: bool
    faster_token_stride: int
    pool_before_projector: bool | None
    spatial_pool_mode: str | None
    spatial_pool_stride: int | None

    def shape(self, tower: TowerKind) -> Shape:
        """The shape by which the registry knows checkpoints."""
        return Shape(
            family=self.family,
            tower=tower,
            hidden_size=self.text["hidden_size"],
            layers=self.text["num_hidden_layers"],
        )

    def text_config(self) -> PreTrainedConfig:
        """The text network's config."""
        return TEXT_CLASSES[self.family](**self.text)

    def canvases(self, tile: int) -> list[list[int]]:
        """Canvases as (height, width) in pixels, in their order, for tiles of so many pixels.

        The original's pairs are (width, height). Read the other way round, square pictures, whose best two
        canvases tie, would be laid out standing instead of lying.

        Raises:
            CheckpointError: They are spelled in a way of their own.

        Source: LLaVA-NeXT, `llava/mm_utils.py`, `process_anyres_image`.
        """
        pairs = self.pinpoints
        if isinstance(pairs, str) and (grids := _GRIDS.findall(pairs)):
            (left, top), (right, bottom) = (tuple(map(int, grid)) for grid in (grids[0], grids[-1]))
            pairs = [
                (width * tile, height * tile)
                for width in range(left, right + 1)
                for height in range(top, bottom + 1)
            ]
        elif isinstance(pairs, str):
            pairs = _literal(pairs)
        if not isinstance(pairs, list) or not pairs:
            raise CheckpointError(
                f"{self.folder}/config.json has image_grid_pinpoints {self.pinpoints!r}; expected pairs of "
                "width and height, or a range like '(1x1),...,(6x6)'"
            )
        return [[height, width] for width, height in pairs]


def read_release(folder: Path) -> Release:
    """The settings of a folder of the original release.

    Raises:
        CheckpointError: no config.json, another family (the supported ones are listed), or a setting that
            LLaVA-NeXT-Video does not have.
    """
    values = read_json(folder / "config.json")
    family = _family(folder, values)
    _refuse_other_ways(folder, values)
    general = set(PreTrainedConfig().to_dict())
    known = set(TEXT_CLASSES[family]().to_dict()) - general | {"rope_scaling"}
    text = {key: value for key, value in values.items() if key in known and value is not None}
    text["rope_theta"] = values.get("rope_theta") or 10_000.0
    if family == "mistral":  # None is a setting: no window
        text["sliding_window"] = values.get("sliding_window", 4096)
    # Source: LLaVA-NeXT, llava_mistral.py and llava_qwen.py, which set config.rope_scaling to None.
    ignored = text.pop("rope_scaling", None) if family != "llama" else None
    limited = _LIMITED.match(str(values.get("image_aspect_ratio")))
    position = values.get("mm_pooling_position")
    return Release(
        folder=folder,
        family=family,
        text=text,
        scaled_in_vain=ignored is not None,
        vision_feature_layer=values.get("mm_vision_select_layer", -2),
        pinpoints=values.get("image_grid_pinpoints"),
        tile_limit=int(limited[1]) if limited else None,
        video_newline=values.get("mm_newline_position"),
        add_faster_video=bool(values.get("add_faster_video")),
        faster_token_stride=values.get("faster_token_stride") or 10,
        pool_before_projector=None if position is None else position == "before",
        spatial_pool_mode=values.get("mm_spatial_pool_mode"),
        spatial_pool_stride=values.get("mm_spatial_pool_stride"),
    )


def write_release(folder: Path, config: LlavaNextVideoConfig, dtype: str) -> None:
    """Write the config.json that the original release would have for a model, and its tower's where needed.

    Raises:
        CheckpointError: a text network that the original has no class for.
    """
    text = config.text_config.to_dict()
    architecture = next((a for a, family in ARCHITECTURES.items() if family == text["model_type"]), None)
    if architecture is None:
        raise CheckpointError(
            f"the original release has no class for {text['model_type']} networks; it has "
            f"{', '.join(ARCHITECTURES.values())}"
        )
    for key, fine in (
        ("vision_feature_layer", isinstance(config.vision_feature_layer, int)),
        ("projector_hidden_act", config.projector_hidden_act == "gelu"),
        ("multimodal_projector_bias", config.multimodal_projector_bias),
    ):
        if not fine:
            raise CheckpointError(f"the original release has no way to say {key} {getattr(config, key)!r}")
    if config.add_faster_video and config.video_newline != "grid":
        raise CheckpointError(
            f"the original release has no slow-fast clips with newlines {config.video_newline!r}, only 'grid'"
        )
    general = set(PreTrainedConfig().to_dict()) | {"rope_parameters", "layer_types"}
    values = {key: value for key, value in text.items() if key not in general}
    rope = text["rope_parameters"]
    scaled = rope.get("rope_type", "default") != "default"
    vision, tower = config.vision_config, tower_name(config.vision_config)
    values |= {
        "architectures": [architecture],
        "model_type": "llava_qwen" if text["model_type"] == "qwen2" else f"llava_{text['model_type']}",
        "torch_dtype": dtype,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": rope["rope_type"], "factor": rope["factor"]} if scaled else None,
        "tie_word_embeddings": config.tie_word_embeddings,
        "mm_vision_tower": tower or OWN_TOWER,
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_resampler_type": "spatial_pool",
        "mm_spatial_pool_mode": config.spatial_pool_mode,
        "mm_spatial_pool_stride": config.spatial_pool_stride,
        "mm_spatial_pool_out_channels": config.spatial_pool_out_channels,
        "mm_newline_position": config.video_newline,
        "add_faster_video": config.add_faster_video,
        "faster_token_stride": config.faster_token_stride,
        "mm_pooling_position": "before" if config.pool_before_projector else "after",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2 if "siglip" in vision.model_type else config.vision_feature_layer,
        "image_aspect_ratio": f"anyres_max_{limit}" if (limit := config.image_tile_limit) else "anyres",
        "image_grid_pinpoints": [[width, height] for height, width in config.image_grid_pinpoints],
        "use_mm_proj": True,
    }
    _dump(folder / "config.json", values)
    if tower is None:
        about = vision.to_dict()
        if "siglip" in vision.model_type:
            about["num_hidden_layers"] = config.vision_feature_layer % (vision.num_hidden_layers + 1) + 1
        _dump(folder / OWN_TOWER, about)


def shape_of(text: PreTrainedConfig, vision: PreTrainedConfig) -> Shape:
    """The shape by which the registry knows checkpoints, of a network that is configured already."""
    family = next(family for family in ARCHITECTURES.values() if family == text.model_type)
    return Shape(
        family=family,
        tower="clip" if vision.model_type == "clip_vision_model" else "siglip",
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
    )


def read_json(path: Path) -> dict[str, Any]:
    """The settings of a JSON file.

    Raises:
        CheckpointError: it is missing or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}; give the folder of a checkpoint") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return values


def _family(folder: Path, values: Mapping[str, Any]) -> Family:
    named = (values.get("architectures") or ["none"])[0]
    kind = values.get("model_type")
    if kind == "llava_next_video":
        raise CheckpointError(f"{folder} is in the layout of the hub already")
    if kind == "llava_next":
        raise CheckpointError(f"{folder} is a LLaVA-NeXT image checkpoint; use `convert image`")
    if named not in ARCHITECTURES or "mm_vision_tower" not in values:
        raise CheckpointError(
            f"{folder} is a {named} (model_type {kind!r}), which is no LLaVA-NeXT-Video of the original "
            f"release; supported are {', '.join(ARCHITECTURES)}, with a CLIP or SigLIP tower"
        )
    return ARCHITECTURES[named]


def _refuse_other_ways(folder: Path, values: Mapping[str, Any]) -> None:
    """Raise for settings with which the original computes something that this network does not."""
    aspect = str(values.get("image_aspect_ratio", "anyres"))
    expected: tuple[tuple[str, object, bool, str], ...] = tuple(
        (key, values[key], fine, wanted)
        for key, fine, wanted in (
            ("mm_projector_type", values.get("mm_projector_type") == "mlp2x_gelu", "mlp2x_gelu"),
            ("mm_patch_merge_type", values.get("mm_patch_merge_type") == "spatial_unpad", "spatial_unpad"),
            ("mm_resampler_type", values.get("mm_resampler_type") in (None, "spatial_pool"), "spatial_pool"),
            ("mm_vision_select_feature", values.get("mm_vision_select_feature") == "patch", "patch"),
            ("mm_use_im_start_end", not values.get("mm_use_im_start_end"), "false"),
            # Source: LLaVA-NeXT, llava_arch.py, whose other newline modes leave the fast frames out.
            (
                "add_faster_video",
                not values.get("add_faster_video") or values.get("mm_newline_position") == "grid",
                "false, or true with mm_newline_position 'grid'",
            ),
            ("image_aspect_ratio", aspect == "anyres" or bool(_LIMITED.match(aspect)), "anyres"),
            (
                "mm_pooling_position",
                values.get("mm_pooling_position") in (None, "before", "after"),
                "before or after",
            ),
        )
        if key in values
    )
    for key, given, fine, wanted in expected:
        if not fine:
            raise CheckpointError(f"{folder}/config.json has {key} {given!r}; supported is {wanted}")


def _literal(text: str) -> object:
    try:
        return [tuple(pair) for pair in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError):
        return None


def _dump(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
