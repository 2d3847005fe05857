"""Checkpoint folders of every era."""

import json

import numpy as np
import pytest
import torch
from tests.processing.conftest import PINPOINTS, SIDE

from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.processing import (
    AutoProcessor,
    LlavaNextImageProcessor,
    LlavaNextVideoImageProcessor,
    LlavaNextVideoProcessor,
    chat_template,
)

PIXELS = {
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
    "image_grid_pinpoints": PINPOINTS,
}
FLAT = {
    "processor_class": "LlavaNextVideoProcessor",
    "patch_size": 14,
    "num_additional_image_tokens": 1,
    "vision_feature_select_strategy": "default",
    "image_token": "<image>",
    "video_token": "<video>",
}
CONFIG = {
    "model_type": "llava_next_video",
    "image_grid_pinpoints": PINPOINTS,
    "vision_config": {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 14},
}
TEMPLATE = chat_template("vicuna")

SEED = {
    "preprocessor_config.json": {**PIXELS, "image_processor_type": "LlavaNextImageProcessor"},
    "processor_config.json": FLAT,
    "chat_template.json": {"chat_template": TEMPLATE},
}
ERAS = {
    # transformers 5.23 reads none of the first two: its issue 42142, and a class that is gone.
    "2024": SEED,
    "2024, clip class last": {
        **SEED,
        "preprocessor_config.json": {**PIXELS, "image_processor_type": "LlavaNextVideoImageProcessor"},
    },
    "2024, silent processor": {
        "preprocessor_config.json": {**PIXELS, "image_processor_type": "LlavaNextImageProcessor"},
        "chat_template.json": {"chat_template": TEMPLATE},
        "config.json": CONFIG,
    },
    "2025": {
        **SEED,
        "video_preprocessor_config.json": {**PIXELS, "video_processor_type": "LlavaNextVideoVideoProcessor"},
    },
    "2026": {
        "processor_config.json": {
            **FLAT,
            "image_processor": {**PIXELS, "image_processor_type": "LlavaNextImageProcessor"},
            "video_processor": {**PIXELS, "video_processor_type": "LlavaNextVideoVideoProcessor"},
        },
        "chat_template.jinja": TEMPLATE,
    },
    "config.json alone": {"config.json": CONFIG, "chat_template.jinja": TEMPLATE},
}


def write(folder, files, tokenizer):
    tokenizer.save_pretrained(folder)
    for name, content in files.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("era", ERAS)
def test_a_folder_of_any_era_gives_the_same_inputs(tmp_path, small_tokenizer, processor, clip, picture, era):
    loaded = LlavaNextVideoProcessor.from_pretrained(write(tmp_path, ERAS[era], small_tokenizer))
    text = "<video><image>"
    got, wanted = (one(text, images=picture, videos=clip) for one in (loaded, processor))
    for name, tensor in wanted.items():
        assert torch.equal(got[name], tensor), name
    assert loaded.chat_template == TEMPLATE


def test_what_is_saved_is_read_back(tmp_path, processor, clip):
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template
    assert torch.equal(
        again("<video>", videos=clip)["input_ids"], processor("<video>", videos=clip)["input_ids"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_settings_that_transformers_does_not_know_survive_saving(tmp_path, small_tokenizer, processor):
    processor.spatial_pool_stride, processor.video_newline = 4, "grid"
    processor.save_pretrained(tmp_path)
    again = LlavaNextVideoProcessor.from_pretrained(tmp_path)
    assert (again.spatial_pool_stride, again.video_newline) == (4, "grid")


def test_the_model_decides_where_its_config_and_the_processor_disagree(tmp_path, small_tokenizer, clip):
    config = {**CONFIG, "spatial_pool_stride": 4, "video_newline_mode": "frame"}
    files = {**SEED, "config.json": config, "processor_config.json": {**FLAT, "patch_size": 28}}
    write(tmp_path, files, small_tokenizer)
    with pytest.warns(UserWarning, match="patch_size 28 against 14"):
        loaded = LlavaNextVideoProcessor.from_pretrained(tmp_path)
    # 4x4 patches pooled by 4 leave one token, and a newline a frame.
    ids = loaded("<video>", videos=clip)["input_ids"]
    assert (ids == loaded.video_token_id).sum() == 8 * 2


def test_another_order_of_pinpoints_is_a_disagreement(tmp_path, small_tokenizer):
    other = {**PIXELS, "image_grid_pinpoints": PINPOINTS[::-1]}
    write(tmp_path, {**SEED, "preprocessor_config.json": other, "config.json": CONFIG}, small_tokenizer)
    with pytest.warns(UserWarning, match="image_grid_pinpoints"):
        loaded = LlavaNextVideoProcessor.from_pretrained(tmp_path)
    assert loaded.image_processor.image_grid_pinpoints == PINPOINTS


def test_unused_settings_of_a_file_are_named_once(tmp_path, small_tokenizer):
    files = {"preprocessor_config.json": {**PIXELS, "do_sparkle": True}}
    write(tmp_path, files, small_tokenizer)
    with pytest.warns(UserWarning, match="not used here: do_sparkle"):
        LlavaNextImageProcessor.from_pretrained(tmp_path)


def test_parts_load_and_save_alone(tmp_path, small_tokenizer, clip):
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub", SEED, small_tokenizer)
    moving = LlavaNextVideoImageProcessor.from_pretrained(tmp_path / "hub", do_normalize=False)
    assert not moving.do_normalize
    moving.save_pretrained(tmp_path / "moving")
    assert LlavaNextVideoImageProcessor.from_pretrained(tmp_path / "moving").to_dict() == moving.to_dict()
    still = LlavaNextImageProcessor.from_pretrained(tmp_path / "hub")
    still.save_pretrained(tmp_path / "still")
    assert LlavaNextImageProcessor.from_pretrained(tmp_path / "still").to_dict() == still.to_dict()


def test_templates_besides_the_default_are_kept(tmp_path, small_tokenizer, processor):
    processor.chat_template = {"default": "d", "other": "o"}
    processor.save_pretrained(tmp_path)
    assert LlavaNextVideoProcessor.from_pretrained(tmp_path).chat_template == {"default": "d", "other": "o"}


def test_the_pad_side_can_be_chosen_while_loading(tmp_path, small_tokenizer):
    write(tmp_path, SEED, small_tokenizer)
    assert LlavaNextVideoProcessor.from_pretrained(tmp_path).tokenizer.padding_side == "left"
    loaded = LlavaNextVideoProcessor.from_pretrained(tmp_path, padding_side="right", patch_size=7)
    assert (loaded.tokenizer.padding_side, loaded.patch_size) == ("right", 7)
    with pytest.raises(ConfigError, match="no keyword 'pad_side'"):
        LlavaNextVideoProcessor.from_pretrained(tmp_path, pad_side="right")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"processor_config.json": "{"}, "is no JSON"),
        ({"processor_config.json": "[]"}, "expected settings by name"),
        ({"chat_template.jinja": b"\xff\xfe"}, "chat_template.jinja: expected UTF-8 text"),
    ],
)
def test_broken_files_are_named(tmp_path, small_tokenizer, files, sentence):
    write(tmp_path, files, small_tokenizer)
    with pytest.raises(CheckpointError, match=sentence):
        LlavaNextVideoProcessor.from_pretrained(tmp_path)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="is no folder here"):
        LlavaNextVideoProcessor.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nobody/nothing: no folder of that name, and not in the hub"):
        LlavaNextVideoProcessor.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="tokenizer cannot be loaded"):
        LlavaNextVideoProcessor.from_pretrained(tmp_path)


def test_a_size_is_an_exact_one_or_a_shortest_edge(clip):
    exact = LlavaNextVideoImageProcessor(size={"height": 30, "width": 40}, do_center_crop=False)
    assert exact(clip, return_tensors="np")["pixel_values_videos"].shape == (1, 8, 3, 30, 40)
    number = LlavaNextVideoImageProcessor(size=30, crop_size=30)
    assert number.size == {"shortest_edge": 30}
    assert np.shape(number(clip)["pixel_values_videos"][0]) == (8, 3, 30, 30)
