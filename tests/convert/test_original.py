"""Checkpoints of the original release: to the hub's layout and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.convert.conftest import TOWERS, bare_tokenizer
from tests.convert.plain import Original
from transformers import CLIPVisionConfig, LlamaConfig, SiglipVisionConfig

from llava_next_video import VideoAssistant
from llava_next_video.convert import Wishes, hub_to_original, original_to_hub
from llava_next_video.convert.parts import checkpoint_processor, with_placeholders
from llava_next_video.errors import CheckpointError
from llava_next_video.model import (
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    context_limit,
)
from llava_next_video.processing import LlavaNextVideoProcessor, chat_template
from llava_next_video.size import Size

CLIP = Wishes(template="vicuna")
"""Tiny networks are no published checkpoints, so their template is told."""

SLOW_FAST = {
    "add_faster_video": True,
    "faster_token_stride": 2,
    "mm_newline_position": "grid",
    "mm_spatial_pool_mode": "bilinear",
}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder, whatever its shards."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype, name
        assert torch.equal(found[name], weight), name


@pytest.mark.parametrize(
    ("family", "tower", "said", "expected"),
    [
        ("llama", "clip", {}, {"pool_first": True, "newline": "no_token"}),
        (
            "qwen2",
            "siglip",
            {"mm_spatial_pool_mode": "absent", "mm_spatial_pool_stride": None, "mm_resampler_type": None},
            {"pool_first": False, "newline": "grid", "mode": "bilinear"},
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("llama", "clip", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_factor": 2.0}),
                ("llama", "clip", {"mm_spatial_pool_mode": "max"}, {"mode": "max"}),
                ("llama", "clip", {"mm_spatial_pool_stride": 5}, {"stride": 5}),
                ("mistral", "clip", {}, {}),
                ("qwen2", "clip", {"mm_newline_position": "grid"}, {"pool_first": False, "newline": "grid"}),
                (
                    "qwen2",
                    "clip",
                    {"mm_newline_position": "frame", "mm_pooling_position": "before"},
                    {"newline": "frame"},
                ),
                (
                    "qwen2",
                    "clip",
                    {"mm_newline_position": "one_token"},
                    {"pool_first": False, "newline": "one_token"},
                ),
                (
                    "qwen2",
                    "siglip",
                    SLOW_FAST,
                    {"pool_first": False, "newline": "grid", "every": 2} | {"mode": "bilinear"},
                ),
            )
        ),
    ],
    ids=str,
)
def test_a_converted_checkpoint_computes_what_the_original_computes(
    release: Any, tmp_path: Path, family: str, tower: str, said: dict[str, Any], expected: dict[str, Any]
) -> None:
    folder = release(family, tower, **said)
    original_to_hub(folder, tmp_path / "hub", CLIP)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path / "hub").eval()
    told = {"pool_first": True, "mode": "average", "stride": 2, "newline": "no_token"} | expected
    original = Original(weights=weights_of(folder), tower=tower, **told)
    frames = torch.randn(3, 3, 70, 70, generator=torch.Generator().manual_seed(1))
    seen = original.clip(frames)
    video = model.config.video_token_index
    ids = [1, 30, 40, *[video] * len(seen), 50, 60, 70]
    with torch.inference_mode():
        found = model(torch.tensor([ids]), pixel_values_videos=frames[None]).logits[0]
    wanted = original.logits([1, 30, 40, video, 50, 60, 70], {3: seen})
    vocabulary = wanted.shape[1]
    torch.testing.assert_close(found[:, :vocabulary].double(), wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "tower", "dtype", "shards"),
    [
        ("llama", "clip", torch.float16, 1),
        ("qwen2", "siglip", torch.bfloat16, 3),
        pytest.param("mistral", "clip", torch.bfloat16, 3, marks=pytest.mark.slow),
        pytest.param("qwen2", "clip", torch.float32, 1, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_there_and_back_every_bit_is_the_same(
    release: Any, tmp_path: Path, family: str, tower: str, dtype: torch.dtype, shards: int
) -> None:
    folder = release(family, tower, dtype=dtype, shards=shards)
    original_to_hub(folder, tmp_path / "hub", CLIP, shard_bytes=50_000)
    assert len(list((tmp_path / "hub").glob("model-*.safetensors"))) > 1
    hub_to_original(tmp_path / "hub", tmp_path / "back")
    assert_same_bits(weights_of(tmp_path / "back"), weights_of(folder))
    for path in folder.glob("*.json"):
        if not path.name.endswith(".index.json"):
            assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes(), path.name


def test_slow_fast_clips_keep_their_learned_token(release: Any, tmp_path: Path) -> None:
    folder = release("qwen2", "siglip", **SLOW_FAST)
    original_to_hub(folder, tmp_path / "hub", CLIP)
    config = LlavaNextVideoConfig.from_pretrained(tmp_path / "hub")
    # 3 x 3 and 2 x 2 of 5 x 5 patches, a newline a row, a token a frame: 2 slow frames and 2 fast ones
    assert config.video_layout(4).tokens == 2 * (3 * 4 + 1) + 2 * (2 * 3 + 1)
    processor = LlavaNextVideoProcessor.from_pretrained(tmp_path / "hub")
    assert processor.counting.clip(4, Size(70, 70)) == config.video_layout(4).tokens
    kept = weights_of(folder)["model.faster_token"]
    assert torch.equal(weights_of(tmp_path / "hub")["faster_token"], kept)
    hub_to_original(tmp_path / "hub", tmp_path / "back")
    assert_same_bits(weights_of(tmp_path / "back"), weights_of(folder))


@pytest.mark.slow
@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"video_newline": "grid", "pool_before_projector": False, "spatial_pool_mode": "bilinear"},
        {"spatial_pool_mode": "conv"},
        {"image_tile_limit": 9, "video_newline": "one_token"},
        {"add_faster_video": True, "faster_token_stride": 3, "video_newline": "grid"}
        | {"spatial_pool_mode": "bilinear"},
    ],
    ids=str,
)
def test_a_checkpoint_of_the_hub_comes_back_from_the_original_layout(
    tmp_path: Path, tower: str, settings: dict[str, Any]
) -> None:
    hub = hub_checkpoint(tmp_path / "hub", tower, **settings)
    hub_to_original(hub, tmp_path / "original")
    names = weights_of(tmp_path / "original")
    assert "model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight" in names
    assert "model.mm_projector.2.bias" in names
    original_to_hub(tmp_path / "original", tmp_path / "again", CLIP)
    assert_same_bits(weights_of(tmp_path / "again"), weights_of(hub))
    before, after = (
        LlavaNextVideoConfig.from_pretrained(path).to_dict() for path in (hub, tmp_path / "again")
    )
    for config in (
        before,
        after,
        *(c[part] for c in (before, after) for part in ("text_config", "vision_config")),
    ):
        for key in ("_name_or_path", "architectures", "dtype", "projection_dim", "pretraining_tp"):
            config.pop(key, None)
    assert after == before


def hub_checkpoint(folder: Path, tower: str, **settings: Any) -> Path:
    """A checkpoint in the hub's layout that never was an original one."""
    tokenizer = with_placeholders(bare_tokenizer())
    about = {key: value for key, value in TOWERS[tower].items() if key != "model_type"}
    vision = (
        CLIPVisionConfig(**about) if tower == "clip" else SiglipVisionConfig(**about, vision_use_head=False)
    )
    text = LlamaConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_scaling={"type": "linear", "factor": 2.5},
        pad_token_id=0,
    )
    config = LlavaNextVideoConfig(
        vision,
        text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[140, 70], [70, 140], [140, 140]],
        vision_feature_select_strategy="default" if tower == "clip" else "full",
        **settings,
    )
    torch.manual_seed(3)
    model = LlavaNextVideoForConditionalGeneration(config)
    model.save_pretrained(folder, max_shard_size="60KB")
    checkpoint_processor(config, tokenizer, chat_template("vicuna")).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_engine_answers_from_a_converted_checkpoint_like_the_reference(
    release: Any, tmp_path: Path, square_clip: Path
) -> None:
    folder = release("qwen2", "siglip", mm_spatial_pool_mode="bilinear", image_aspect_ratio="anyres_max_1")
    original_to_hub(folder, tmp_path / "hub", Wishes(template="qwen"))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 130, 3), np.uint8))
    asked = {"media": [square_clip, picture], "question": "What happens?"}
    answers = [
        VideoAssistant.load(tmp_path / "hub", reference=reference, dtype="float32")
        .ask(**asked, frames=3, max_new_tokens=8)
        .text
        for reference in (False, True)
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_the_processor_sees_what_the_tower_was_trained_with(release: Any, tmp_path: Path) -> None:
    original_to_hub(release("llama", "clip", name="a"), tmp_path / "clip", CLIP)
    original_to_hub(release("qwen2", "siglip", name="b"), tmp_path / "siglip", CLIP)
    wide = np.zeros((1, 70, 280, 3), np.uint8)
    wide[:, :, :70] = 255  # a white left quarter, which a crop of the middle does not see
    middle, whole = (
        LlavaNextVideoProcessor.from_pretrained(tmp_path / name)("<video>", videos=wide)[
            "pixel_values_videos"
        ]
        for name in ("clip", "siglip")
    )
    assert middle.shape == whole.shape == (1, 1, 3, 70, 70)
    assert float(middle[0, 0, 0].max()) == pytest.approx(-0.48145466 / 0.26862954, abs=1e-5)  # all black
    assert float(whole.max()) == pytest.approx(1.0)  # (1 - 0.5) / 0.5
    assert float(whole[0, 0, 0, :, :10].min()) == pytest.approx(1.0)


def test_placeholders_take_spare_rows_before_the_vocabulary_grows(release: Any, tmp_path: Path) -> None:
    tokens = len(bare_tokenizer())
    original_to_hub(release(name="tight"), tmp_path / "grown", CLIP)
    original_to_hub(release(name="roomy", spare=10), tmp_path / "same", CLIP)
    grown, same = (weights_of(tmp_path / name) for name in ("grown", "same"))
    table = "language_model.model.embed_tokens.weight"
    config = LlavaNextVideoConfig.from_pretrained(tmp_path / "grown")
    assert (config.video_token_index, config.image_token_index) == (tokens, tokens + 1)
    assert len(grown[table]) == config.text_config.vocab_size == -(-(tokens + 2) // 64) * 64
    assert len(same[table]) == tokens + 10
    mean = grown[table][:tokens].double().mean(dim=0).float()
    assert torch.equal(grown[table][tokens:], mean.expand(len(grown[table]) - tokens, -1))


@pytest.mark.slow
def test_a_fine_tuned_conversion_goes_back_with_its_new_weights(release: Any, tmp_path: Path) -> None:
    original_to_hub(release(), tmp_path / "hub", CLIP)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path / "hub")
    with torch.no_grad():
        model.model.image_newline.add_(1.0)
    model.save_pretrained(tmp_path / "hub")
    hub_to_original(tmp_path / "hub", tmp_path / "back")
    assert torch.equal(
        weights_of(tmp_path / "back")["model.image_newline"], model.model.image_newline.detach()
    )


@pytest.mark.slow
def test_wishes_come_before_the_config_and_the_registry(release: Any, tmp_path: Path) -> None:
    wishes = Wishes(
        template="qwen",
        rope_factor=4.0,
        video_newline="frame",
        pool_before_projector=False,
        spatial_pool_mode="max",
        spatial_pool_stride=1,
    )
    original_to_hub(
        release(mm_newline_position="grid", mm_pooling_position="before"), tmp_path / "hub", wishes
    )
    config = LlavaNextVideoConfig.from_pretrained(tmp_path / "hub")
    assert (config.video_newline, config.pool_before_projector) == ("frame", False)
    assert (config.spatial_pool_mode, config.spatial_pool_stride) == ("max", 1)
    assert context_limit(config) == 4 * 512
    assert "<|im_start|>" in (tmp_path / "hub" / "chat_template.jinja").read_text()


def test_positions_that_the_original_does_not_scale_are_not_scaled(release: Any, tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    converted = original_to_hub(release("mistral", rope_scaling=scaling), tmp_path / "hub", CLIP)
    assert context_limit(LlavaNextVideoConfig.from_pretrained(tmp_path / "hub")) == 512
    assert any("ignores it for mistral" in note for note in converted.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spelled", "canvases"),
    [
        # A square picture ties between the first two: the original lays it on (width 70, height 140).
        ([[70, 140], [140, 70]], [[140, 70], [70, 140]]),
        ("[(70, 140), (140, 70)]", [[140, 70], [70, 140]]),
        ("(1x1),...,(2x2)", [[70, 70], [140, 70], [70, 140], [140, 140]]),
    ],
    ids=str,
)
def test_canvases_are_turned_from_width_first_to_height_first(
    release: Any, tmp_path: Path, spelled: object, canvases: list[list[int]]
) -> None:
    original_to_hub(release(image_grid_pinpoints=spelled), tmp_path / "hub", CLIP)
    assert LlavaNextVideoConfig.from_pretrained(tmp_path / "hub").image_grid_pinpoints == canvases


@pytest.mark.slow
def test_pickles_are_read_as_tensors_alone(release: Any, tmp_path: Path) -> None:
    folder = release()
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    original_to_hub(folder, tmp_path / "hub", CLIP)
    hub_to_original(tmp_path / "hub", tmp_path / "back")
    assert_same_bits(weights_of(tmp_path / "back"), weights)
    torch.save(weights | {"code": print}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is no file of tensors alone"):
        original_to_hub(folder, tmp_path / "other", CLIP)


@pytest.mark.slow
def test_buffers_that_every_network_computes_are_left_out(release: Any, tmp_path: Path) -> None:
    folder = release()
    weights = weights_of(folder)
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids": torch.zeros(1, 26).long(),
    }
    save_file(weights | extra, folder / "model.safetensors")
    original_to_hub(folder, tmp_path / "hub", CLIP)
    hub_to_original(tmp_path / "hub", tmp_path / "back")
    assert_same_bits(weights_of(tmp_path / "back"), weights)
