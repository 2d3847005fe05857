"""The published checkpoints, in their real shapes: files of weights whose numbers are holes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.convert.conftest import ARCHITECTURES, bare_tokenizer

from llava_next_video.convert import PUBLISHED, Published, Wishes
from llava_next_video.convert.original import in_hub_form
from llava_next_video.errors import CheckpointError
from llava_next_video.model import context_limit
from llava_next_video.processing import chat_template

# Inner width, heads, key-value heads, vocabulary, theta and positions of Vicuna 7B, Mistral 7B, Yi 34B,
# Qwen1.5 32B, Qwen2 7B and 72B, from their config.json.
TEXTS: dict[tuple[str, int], tuple[int, int, int, int, float, int]] = {
    ("llama", 4096): (11008, 32, 32, 32000, 1e4, 4096),
    ("mistral", 4096): (14336, 32, 8, 32000, 1e6, 32768),
    ("llama", 7168): (20480, 56, 8, 64000, 5e6, 4096),
    ("qwen2", 5120): (27392, 40, 8, 152064, 1e6, 32768),
    ("qwen2", 3584): (18944, 28, 4, 152064, 1e6, 32768),
    ("qwen2", 8192): (29568, 64, 8, 152064, 1e6, 32768),
}


def hollow(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of that many float16 numbers, none of which takes room on the disk."""
    head, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        head[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(head).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def tower_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """CLIP ViT-L/14-336, or SigLIP so400m-384 without its last layer."""
    at = "model.vision_tower.vision_tower.vision_model."
    width, inner, layers, places = (1024, 4096, 24, 577) if kind == "clip" else (1152, 4304, 26, 729)
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{at}embeddings.position_embedding.weight": (places, width),
    }
    norms = ["post_layernorm"]
    if kind == "clip":
        shapes[f"{at}embeddings.class_embedding"] = (width,)
        norms.append("pre_layrnorm")
    else:
        shapes[f"{at}embeddings.patch_embedding.bias"] = (width,)
    for layer in range(layers):
        inside = f"encoder.layers.{layer}."
        norms += [f"{inside}layer_norm1", f"{inside}layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{at}{inside}self_attn.{name}.weight"] = (width, width)
            shapes[f"{at}{inside}self_attn.{name}.bias"] = (width,)
        shapes[f"{at}{inside}mlp.fc1.weight"], shapes[f"{at}{inside}mlp.fc1.bias"] = (inner, width), (inner,)
        shapes[f"{at}{inside}mlp.fc2.weight"], shapes[f"{at}{inside}mlp.fc2.bias"] = (width, inner), (width,)
    for norm in norms:
        shapes[f"{at}{norm}.weight"], shapes[f"{at}{norm}.bias"] = (width,), (width,)
    return shapes


def published_folder(folder: Path, known: Published, **changes: Any) -> Path:
    """The folder of a published checkpoint: its config.json as far as it speaks, and hollow weights."""
    shape = known.shape
    inner, heads, groups, vocabulary, theta, positions = TEXTS[shape.family, shape.hidden_size]
    width, seen = shape.hidden_size, 1024 if shape.tower == "clip" else 1152
    shapes = tower_shapes(shape.tower) | {
        "model.embed_tokens.weight": (vocabulary, width),
        "lm_head.weight": (vocabulary, width),
        "model.norm.weight": (width,),
        "model.image_newline": (width,),
        "model.mm_projector.0.weight": (width, seen),
        "model.mm_projector.0.bias": (width,),
        "model.mm_projector.2.weight": (width, width),
        "model.mm_projector.2.bias": (width,),
    }
    for layer in range(shape.layers):
        at, few = f"model.layers.{layer}.", groups * width // heads
        shapes |= {f"{at}self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        shapes |= {f"{at}self_attn.{name}_proj.weight": (few, width) for name in "kv"}
        if shape.family == "qwen2":
            shapes |= {f"{at}self_attn.{name}_proj.bias": (few,) for name in "kv"}
            shapes[f"{at}self_attn.q_proj.bias"] = (width,)
        shapes |= {f"{at}mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (width, inner)
        shapes |= {f"{at}{norm}.weight": (width,) for norm in ("input_layernorm", "post_attention_layernorm")}
    folder.mkdir(parents=True)
    hollow(folder, shapes)
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[shape.family]],
        "model_type": "llava",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "rope_theta": theta,
        "max_position_embeddings": positions,
        "mm_vision_tower": "a name that nobody looks at",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres_max_9" if shape.tower == "siglip" else "anyres",
        "image_grid_pinpoints": "(1x1),...,(6x6)"
        if shape.tower == "siglip"
        else [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    bare_tokenizer().save_pretrained(folder)
    return folder


# Template, visual tokens of a frame (12 x 12 of CLIP's 24 x 24, with a newline a row; 14 x (14 + 1) of
# SigLIP's 27 x 27), positions.
EXPECTED = {
    "lmms-lab/LLaVA-NeXT-Video-7B": ("vicuna", 144, 10240),
    "lmms-lab/LLaVA-NeXT-Video-7B-DPO": ("vicuna", 144, 10240),
    "lmms-lab/LLaVA-NeXT-Video-7B-32K": ("chatml_direct", 144, 32768),
    "lmms-lab/LLaVA-NeXT-Video-34B": ("chatml_direct", 144, 4096),
    "lmms-lab/LLaVA-NeXT-Video-34B-DPO": ("chatml_direct", 144, 4096),
    "lmms-lab/LLaVA-NeXT-Video-32B-Qwen": ("qwen", 12 * 13, 32768),
    "lmms-lab/LLaVA-Video-7B-Qwen2": ("qwen", 14 * 15, 32768),
    "lmms-lab/LLaVA-Video-72B-Qwen2": ("qwen", 14 * 15, 32768),
}


@pytest.mark.slow
@pytest.mark.parametrize("known", PUBLISHED, ids=lambda known: known.name.rpartition("/")[2])
def test_a_published_checkpoint_is_known_by_its_shape_alone(tmp_path: Path, known: Published) -> None:
    folder = published_folder(tmp_path / "downloads", known)
    form = in_hub_form(folder, Wishes())
    template, tokens, context = EXPECTED[known.name]
    assert form.template == chat_template(template)
    assert form.config.video_layout(1).tokens_per_frame == tokens
    assert context_limit(form.config) == context
    assert form.config.vision_config.num_attention_heads == 16
    assert known.sources


def test_every_published_checkpoint_is_expected_above() -> None:
    assert [known.name for known in PUBLISHED] == list(EXPECTED)


@pytest.mark.slow
def test_a_name_that_contradicts_the_config_is_refused(tmp_path: Path) -> None:
    small = published_folder(tmp_path / "LLaVA-NeXT-Video-34B", PUBLISHED[0])
    message = r"called LLaVA-NeXT-Video-34B, but .* llama of 32 layers x 4096 .* llama of 60 layers x 7168"
    with pytest.raises(CheckpointError, match=message):
        in_hub_form(small, Wishes())
    right = published_folder(tmp_path / "LLaVA-NeXT-Video-7B-DPO", PUBLISHED[0])
    assert in_hub_form(right, Wishes()).known is not None
