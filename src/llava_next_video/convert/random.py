"""A checkpoint with random weights, complete in every file."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

from llava_next_video.convert.folder import folder_bytes, new_folder
from llava_next_video.convert.parts import checkpoint_processor
from llava_next_video.convert.presets import Preset
from llava_next_video.convert.tensors import Weight, write_weights
from llava_next_video.convert.tokenizer import IMAGE, SMALL_TALK, VIDEO, byte_level_bpe
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.model.layouts import on_hub
from llava_next_video.model.precision import FLOATS, read_dtype
from llava_next_video.model.weights import skeleton
from llava_next_video.processing import chat_template

STANDARD_DEVIATION = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What `write_random` put on disk."""

    parameters: int
    size_bytes: int


def write_random(out: Path, preset: Preset, *, seed: int = 0, dtype: str = "float32") -> Written:
    """Write a folder that loads like a published checkpoint but knows nothing.

    Weights are drawn one tensor at a time, so a 7B is written in the memory of its largest one. The same
    preset, seed and dtype give the same bytes. The folder appears complete or not at all.

    Raises:
        ConfigError: `dtype` is unknown.
        CheckpointError: `out` exists and is not an empty folder.
    """
    numbers = FLOATS[read_dtype(dtype)]
    with new_folder(out) as folder:
        return _write(folder, preset, seed, numbers)


def _write(folder: Path, preset: Preset, seed: int, dtype: torch.dtype) -> Written:
    tokenizer = byte_level_bpe([SMALL_TALK], vocabulary=min(preset.vocabulary, 2048))
    config = _config(preset, tokenizer)
    config.dtype = dtype
    config.architectures = [LlavaNextVideoForConditionalGeneration.__name__]
    shapes = {on_hub(key): value.shape for key, value in skeleton(config).state_dict().items()}
    config.save_pretrained(folder)
    checkpoint_processor(config, tokenizer, chat_template("vicuna")).save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    weights = {
        key: Weight.made(dtype, tuple(shape), partial(_draw, key, shape, seed))
        for key, shape in shapes.items()
    }
    write_weights(folder, weights)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return Written(parameters=parameters, size_bytes=folder_bytes(folder))


def _config(preset: Preset, tokenizer: PreTrainedTokenizerFast) -> LlavaNextVideoConfig:
    side = preset.image
    vision = CLIPVisionConfig(
        hidden_size=preset.vision_width,
        intermediate_size=preset.vision_inner,
        num_hidden_layers=preset.vision_layers,
        num_attention_heads=preset.vision_heads,
        image_size=side,
        patch_size=preset.patch,
        projection_dim=preset.vision_width,
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if preset.rope_factor is not None:
        rope = {"rope_type": "linear", "factor": preset.rope_factor, "rope_theta": 10000.0}
    text = LlamaConfig(
        vocab_size=preset.vocabulary,
        hidden_size=preset.text_width,
        intermediate_size=preset.text_inner,
        num_hidden_layers=preset.text_layers,
        num_attention_heads=preset.text_heads,
        num_key_value_heads=preset.text_key_value_heads,
        max_position_embeddings=preset.positions,
        rope_parameters=rope,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaNextVideoConfig(
        vision,
        text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO),
        image_grid_pinpoints=_pinpoints(side),
    )


def _pinpoints(side: int) -> list[list[int]]:
    """The released grids (1x2, 2x1, 2x2, 3x1, 1x3 tiles) for tiles of `side` pixels."""
    return [[rows * side, columns * side] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]


def _draw(key: str, shape: torch.Size, seed: int) -> Tensor:
    """Random values as a fresh network has them; the key seeds them, so the order of drawing is free."""
    # torch's generator only looks at the lower 32 bits of a seed.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{key}".encode()))
    if key.endswith("bias"):
        return torch.zeros(shape)
    if "norm" in key:  # CLIP spells one of them "layrnorm"
        return torch.ones(shape)
    return torch.empty(shape).normal_(std=STANDARD_DEVIATION, generator=generator)
