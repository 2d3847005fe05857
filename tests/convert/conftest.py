"""Tiny checkpoints in the layout of the original release, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from llava_next_video.convert.tokenizer import SMALL_TALK, byte_level_bpe

WIDTH, TOWER_WIDTH, INNER, HEADS, GROUPS = 32, 24, 40, 4, 2
ARCHITECTURES = {
    "llama": "LlavaLlamaForCausalLM",
    "mistral": "LlavaMistralForCausalLM",
    "qwen2": "LlavaQwenForCausalLM",
}
TOWERS: dict[str, dict[str, Any]] = {
    "clip": {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "siglip": {
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
}
for about in TOWERS.values():
    about |= {
        "hidden_size": TOWER_WIDTH,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 70,  # 5 x 5 patches: an odd grid, as SigLIP's 27 x 27
        "patch_size": 14,
    }


def bare_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer without `<video>` and `<image>`, as a language model has it."""
    core = json.loads(byte_level_bpe([SMALL_TALK], vocabulary=320).backend_tokenizer.to_str())
    core["added_tokens"] = [t for t in core["added_tokens"] if t["content"] not in ("<video>", "<image>")]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


def original_weights(family: str, tower: str, vocabulary: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights under the names of the original release."""
    noise = torch.Generator().manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, WIDTH),
        "model.norm.weight": (WIDTH,),
        "lm_head.weight": (vocabulary, WIDTH),
        "model.image_newline": (WIDTH,),
        "model.mm_projector.0.weight": (WIDTH, TOWER_WIDTH),
        "model.mm_projector.0.bias": (WIDTH,),
        "model.mm_projector.2.weight": (WIDTH, WIDTH),
        "model.mm_projector.2.bias": (WIDTH,),
    }
    head = WIDTH // HEADS
    for layer in range(2):
        at = f"model.layers.{layer}."
        for name, rows in (("q", WIDTH), ("k", GROUPS * head), ("v", GROUPS * head)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (rows, WIDTH)
            if family == "qwen2":
                shapes[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        shapes |= {
            f"{at}self_attn.o_proj.weight": (WIDTH, WIDTH),
            f"{at}mlp.gate_proj.weight": (INNER, WIDTH),
            f"{at}mlp.up_proj.weight": (INNER, WIDTH),
            f"{at}mlp.down_proj.weight": (WIDTH, INNER),
            f"{at}input_layernorm.weight": (WIDTH,),
            f"{at}post_attention_layernorm.weight": (WIDTH,),
        }
    at, wide = "model.vision_tower.vision_tower.vision_model.", TOWER_WIDTH
    shapes[f"{at}embeddings.patch_embedding.weight"] = (wide, 3, 14, 14)
    if tower == "clip":
        shapes[f"{at}embeddings.class_embedding"] = (wide,)
        shapes[f"{at}embeddings.position_embedding.weight"] = (26, wide)
        norms = [f"{at}pre_layrnorm", f"{at}post_layernorm"]
    else:
        shapes[f"{at}embeddings.patch_embedding.bias"] = (wide,)
        shapes[f"{at}embeddings.position_embedding.weight"] = (25, wide)
        norms = [f"{at}post_layernorm"]
    # The original deletes SigLIP's last layer before it trains and saves.
    for layer in range(3 if tower == "clip" else 2):
        inside = f"{at}encoder.layers.{layer}."
        norms += [f"{inside}layer_norm1", f"{inside}layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{inside}self_attn.{name}.weight"] = (wide, wide)
            shapes[f"{inside}self_attn.{name}.bias"] = (wide,)
        shapes[f"{inside}mlp.fc1.weight"], shapes[f"{inside}mlp.fc1.bias"] = (36, wide), (36,)
        shapes[f"{inside}mlp.fc2.weight"], shapes[f"{inside}mlp.fc2.bias"] = (wide, 36), (wide,)
    for norm in norms:
        shapes[f"{norm}.weight"], shapes[f"{norm}.bias"] = (wide,), (wide,)
    return {
        name: (torch.randn(shape, generator=noise) * 0.25 + ("norm" in name and "weight" in name)).to(dtype)
        for name, shape in shapes.items()
    }


def original_config(family: str, tower: str, vocabulary: int, **changes: Any) -> dict[str, Any]:
    """A config.json with the keys of the released ones (LLaVA-NeXT issue 58 shows that of the 7B-DPO)."""
    values = {
        "_name_or_path": "model_zoo/LLM/vicuna/7B-V1.5",
        "architectures": [ARCHITECTURES[family]],
        "model_type": "llava",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "freeze_mm_mlp_adapter": True,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "ignore_index": -100,
        "image_aspect_ratio": "anyres",
        "image_crop_resolution": 224,
        "image_grid_pinpoints": [[70, 140], [140, 70], [140, 140]],
        "image_token_index": 32000,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": 512,
        "mm_hidden_size": TOWER_WIDTH,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": "spatial_pool",
        "mm_spatial_pool_mode": "average",
        "mm_spatial_pool_out_channels": TOWER_WIDTH,
        "mm_spatial_pool_stride": 2,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": "/mnt/somewhere/else/tower",
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "num_key_value_heads": GROUPS,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 2048,
        "torch_dtype": "float32",
        "transformers_version": "4.40.0.dev0",
        "use_mm_proj": True,
        "vocab_size": vocabulary,
    }
    return {key: value for key, value in (values | changes).items() if value != "absent"}


def write_original(
    folder: Path,
    family: str = "llama",
    tower: str = "clip",
    *,
    spare: int = 0,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> Path:
    """A folder of the original release; `changes` go into its config.json ("absent" removes a key)."""
    folder.mkdir()
    tokenizer = bare_tokenizer()
    vocabulary = len(tokenizer) + spare
    weights = original_weights(family, tower, vocabulary, dtype)
    if changes.get("add_faster_video"):
        weights["model.faster_token"] = torch.linspace(-1, 1, WIDTH).to(dtype)
    config = original_config(family, tower, vocabulary, **changes)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tower_config.json").write_text(json.dumps(TOWERS[tower]))
    tokenizer.save_pretrained(folder)
    names = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    names = ["model.safetensors"] if shards == 1 else names
    where: dict[str, str] = {}
    for number, file in enumerate(names):
        part = {key: weights[key] for key in list(weights)[number::shards]}
        save_file(part, folder / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    if shards > 1:
        index = json.dumps({"metadata": {}, "weight_map": where})
        (folder / "model.safetensors.index.json").write_text(index)
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of the original release, by default called `release`."""
    return lambda *kinds, name="release", **settings: write_original(tmp_path / name, *kinds, **settings)
