"""The config: the release's arguments, what works together, and how long a context is."""

import inspect
import json

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig

from llava_next_video.errors import ConfigError
from llava_next_video.model import (
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    context_limit,
    with_rope_factor,
)
from llava_next_video.size import Size


def test_arguments_and_defaults_are_those_of_the_release():
    expected = {
        "vision_config": None,
        "text_config": None,
        "ignore_index": -100,
        "image_token_index": 32001,
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": "default",
        "vision_feature_layer": -2,
        "image_grid_pinpoints": None,
        "tie_word_embeddings": False,
        "video_token_index": 32000,
        "spatial_pool_mode": "average",
        "spatial_pool_stride": 2,
    }
    found = inspect.signature(LlavaNextVideoConfig).parameters.values()
    assert {each.name: each.default for each in found if each.kind is each.POSITIONAL_OR_KEYWORD} == expected
    config = LlavaNextVideoConfig()
    assert config.image_grid_pinpoints == [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (336, 14)
    assert (config.image_token_id, config.video_token_id) == (32001, 32000)


def test_the_network_takes_the_arguments_of_the_release_in_their_order():
    found = list(inspect.signature(LlavaNextVideoForConditionalGeneration.forward).parameters)
    assert found[1:16] == [
        "input_ids",
        "pixel_values",
        "pixel_values_videos",
        "image_sizes",
        "attention_mask",
        "position_ids",
        "past_key_values",
        "inputs_embeds",
        "vision_feature_layer",
        "vision_feature_select_strategy",
        "labels",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
    ]


def test_the_configs_of_the_parts_are_taken_in_order():
    vision, text = CLIPVisionConfig(), LlamaConfig()
    config = LlavaNextVideoConfig(vision, text)
    assert config.vision_config is vision
    assert config.text_config is text
    with torch.device("meta"):
        model = LlavaNextVideoForConditionalGeneration(config)
    assert model.config.vision_config.hidden_size == 768


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"vision_feature_select_strategy": "full"},
            "'full' does not work with clip_vision_model.*use 'default'",
        ),
        ({"vision_feature_select_strategy": "cls"}, "vision_feature_select_strategy"),
        ({"spatial_pool_mode": "median"}, "choose one of average, max, bilinear, conv"),
        ({"spatial_pool_stride": 0}, "at least 1"),
        ({"spatial_pool_stride": 5}, "leaves nothing of a frame of 4x4"),
        ({"video_newline": "row"}, "choose one of no_token, one_token, frame, grid"),
        ({"vision_feature_layer": -5}, r"outside -4\.\.3"),
        ({"vision_feature_layer": []}, "outside"),
        ({"spatial_pool_mode": "conv", "spatial_pool_out_channels": 8}, "is 8; the projector takes 32"),
        ({"spatial_pool_mode": "conv", "vision_feature_layer": [1, 2]}, "takes one layer"),
        ({"spatial_pool_mode": "conv", "pool_before_projector": False}, "pool_before_projector to true"),
        ({"image_token_index": 7, "video_token_index": 7}, "both 7"),
        ({"multimodal_projector_bias": "no"}, "multimodal_projector_bias.*expected bool"),
        ({"use_image_newline_parameter": False}, "use_image_newline_parameter"),
        ({"vision_chunk": 0}, "at least 1 frame"),
        ({"image_tile_limit": 0}, "keeps at least 1 tile"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(make, settings, message):
    with pytest.raises(ConfigError, match=message):
        make.tiny(**settings)


def test_a_siglip_tower_has_no_class_token_to_leave_out(make):
    with pytest.raises(ConfigError, match="use 'full'"):
        make.tiny("siglip", vision_feature_select_strategy="default")


def test_an_unknown_tower_is_refused(make):
    with pytest.raises(ConfigError, match="supported are clip_vision_model, siglip_vision_model"):
        make.tiny(vision_config=make.text(), vision_feature_layer=-2)


def test_a_strategy_that_cannot_work_is_refused_in_a_call_too(make):
    model = make.ours(make.tiny())
    with pytest.raises(ConfigError, match="use 'default'"):
        model.get_video_features(torch.zeros(2, 3, 56, 56), vision_feature_select_strategy="full")
    with pytest.raises(ConfigError, match=r"made for 1 layer"):
        model.get_video_features(torch.zeros(2, 3, 56, 56), vision_feature_layer=[1, 2])


def test_settings_changed_after_construction_are_checked_by_the_network(make):
    config = make.tiny()
    config.spatial_pool_mode = "median"
    with pytest.raises(ConfigError, match="median"):
        LlavaNextVideoForConditionalGeneration(config)


def test_the_other_spelling_of_the_newline_mode_is_read(make):
    assert make.tiny(video_newline_mode="grid").video_newline == "grid"


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        (None, 512),
        ({"type": "linear", "factor": 2.5}, 1280),
        ({"rope_type": "linear", "factor": 2.0}, 1024),
        ({"rope_type": "dynamic", "factor": 2.0}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}, 1024),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "original_max_position_embeddings": 64,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
            512,
        ),
    ],
    ids=str,
)
def test_the_context_is_the_positions_times_the_rope_factor(make, rope, limit):
    config = make.tiny(text_config=make.text(rope_scaling=rope))
    assert context_limit(config) == limit


def test_the_config_of_the_released_7b_is_read(tmp_path):
    released = {
        "architectures": ["LlavaNextVideoForConditionalGeneration"],
        "dtype": "bfloat16",
        "ignore_index": -100,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "image_seq_length": 576,
        "image_token_index": 32001,
        "model_type": "llava_next_video",
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "spatial_pool_mode": "average",
        "spatial_pool_out_channels": 1024,
        "spatial_pool_stride": 2,
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "pad_token_id": 0,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 2.5, "type": "linear"},
            "torch_dtype": "float16",
            "type": "linear",
            "vocab_size": 32064,
        },
        "tie_word_embeddings": False,
        "use_image_newline_parameter": True,
        "video_seq_length": 288,
        "video_token_index": 32000,
        "vision_config": {
            "hidden_size": 1024,
            "image_size": 336,
            "intermediate_size": 4096,
            "model_type": "clip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "projection_dim": 768,
            "vocab_size": 32000,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    (tmp_path / "config.json").write_text(json.dumps(released))
    config = LlavaNextVideoConfig.from_pretrained(tmp_path)
    assert context_limit(config) == 10240
    assert config.video_layout(32).tokens == 4608
    assert config.image_layout(Size(height=480, width=640)).tokens == 2340
    with torch.device("meta"):
        model = LlavaNextVideoForConditionalGeneration(config)
    weights = sum(weight.numel() for weight in model.parameters())
    assert 7.0e9 < weights < 7.1e9


def test_the_released_7b_holds_71_frames():
    text = {"model_type": "llama", "max_position_embeddings": 4096, "type": "linear"}
    text["rope_scaling"] = {"type": "linear", "factor": 2.5}
    config = LlavaNextVideoConfig(text_config=text, vocab_size=32064)
    assert context_limit(config) == 10240
    assert config.video_layout(71).tokens <= 10240 < config.video_layout(72).tokens


def test_a_stray_rope_factor_is_named_with_the_remedy():
    text = {"model_type": "llama", "max_position_embeddings": 4096, "type": "linear", "factor": 2.0}
    with pytest.warns(
        UserWarning, match=r'holds 4096 tokens.*"rope_scaling": {"type": "linear", "factor": 2.0}'
    ):
        config = LlavaNextVideoConfig(text_config=text)
    assert context_limit(config) == 4096


def test_a_rope_factor_lengthens_the_context_and_leaves_the_original(make):
    config = make.tiny()
    longer = with_rope_factor(config, 2.0)
    assert (context_limit(config), context_limit(longer)) == (512, 1024)
    assert LlavaNextVideoForConditionalGeneration(longer).model.language_model.rotary_emb.inv_freq[0] == 0.5
    with pytest.raises(ConfigError, match=r"0\.5 is below 1"):
        with_rope_factor(config, 0.5)
    dynamic = make.tiny(text_config=make.text(rope_scaling={"rope_type": "dynamic", "factor": 2.0}))
    with pytest.raises(ConfigError, match="scaled by dynamic already"):
        with_rope_factor(dynamic, 2.0)


def test_parts_of_unknown_kinds_are_refused():
    with pytest.raises(ConfigError, match="Unrecognized model type"):
        LlavaNextVideoConfig(text_config={"model_type": "llama9"})
