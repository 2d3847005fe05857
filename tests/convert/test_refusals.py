"""What is refused in one sentence, with nothing half-written left."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_next_video.convert import Wishes, hub_to_original, image_to_video, original_to_hub
from llava_next_video.convert.folder import new_folder
from llava_next_video.errors import CheckpointError, ConfigError

CLIP = Wishes(template="vicuna")


def left(tmp_path: Path) -> list[str]:
    """What stands beside the release."""
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "release")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"architectures": ["LlavaGemmaForCausalLM"]},
            "is a LlavaGemmaForCausalLM .* supported are LlavaLlamaForCausalLM, LlavaMistralForCausalLM",
        ),
        ({"architectures": "absent"}, "is a none .* supported are LlavaLlamaForCausalLM"),
        ({"mm_vision_tower": "absent"}, "no LLaVA-NeXT-Video of the original release"),
        ({"model_type": "llava_next_video"}, "in the layout of the hub already"),
        ({"model_type": "llava_next"}, "use `convert image`"),
        ({"mm_projector_type": "linear"}, "mm_projector_type 'linear'; supported is mlp2x_gelu"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type 'flat'"),
        ({"mm_resampler_type": "qformer"}, "mm_resampler_type 'qformer'"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature 'cls_patch'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True"),
        (
            {"add_faster_video": True, "mm_newline_position": "frame"},
            "add_faster_video True; supported is false, or true with mm_newline_position 'grid'",
        ),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio 'pad'; supported is anyres"),
        ({"mm_pooling_position": "no"}, "mm_pooling_position 'no'; supported is before or after"),
        ({"mm_newline_position": "row"}, "unknown video_newline 'row'; choose one of no_token"),
        ({"mm_spatial_pool_stride": 9}, "leaves nothing of a frame of 5x5 patches"),
        ({"image_grid_pinpoints": "all"}, "image_grid_pinpoints 'all'; expected pairs"),
        ({"intermediate_size": 64}, r"does not fit its config.json: .*\(40, 32\) for \(64, 32\)"),
        ({"num_hidden_layers": 3}, "lacks weights, none are made up: .*layers.2"),
        ({"num_hidden_layers": 1}, "weights that its config.json has no place for: .*layers.1"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_honoured_is_refused(
    release: Any, tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    folder = release(**said)
    with pytest.raises(ConfigError, match=message):
        original_to_hub(folder, tmp_path / "out", CLIP)
    assert left(tmp_path) == []


def test_weights_of_something_else_are_named(release: Any, tmp_path: Path) -> None:
    folder = release()
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.vlm_att_query": torch.zeros(32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no place for: model\.vlm_att_query"):
        original_to_hub(folder, tmp_path / "out", CLIP)
    save_file(weights | {"model.faster_token": torch.zeros(32)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"config\.json has no place for: .*faster_token"):
        original_to_hub(folder, tmp_path / "out", CLIP)
    assert left(tmp_path) == []


def test_a_missing_tower_is_told(release: Any, tmp_path: Path) -> None:
    folder = release()
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: weights[key] for key in weights if "vision_tower" not in key}, folder / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="have no vision tower"):
        original_to_hub(folder, tmp_path / "out", CLIP)


def test_an_unknown_tower_is_measured_and_its_config_asked_for(release: Any, tmp_path: Path) -> None:
    folder = release()
    told = json.loads((folder / "tower_config.json").read_text())
    (folder / "tower_config.json").unlink()
    message = r"hidden_size 24.*is none of the towers known here \(openai/clip.*--tower-config"
    with pytest.raises(CheckpointError, match=message):
        original_to_hub(folder, tmp_path / "out", CLIP)
    (tmp_path / "tower.json").write_text(json.dumps({"vision_config": told | {"hidden_size": 48}}))
    with pytest.raises(CheckpointError, match=r"is none of the given config\.json"):
        original_to_hub(folder, tmp_path / "out", CLIP, tower=tmp_path / "tower.json")


def test_a_template_that_nobody_told_is_asked_for(release: Any, tmp_path: Path) -> None:
    folder = release()
    with pytest.raises(ConfigError, match=r"template is not known; give --template: vicuna, mistral"):
        original_to_hub(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no chat template 'vicunna'; known: vicuna"):
        original_to_hub(folder, tmp_path / "out", Wishes(template="vicunna"))
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    original_to_hub(folder, tmp_path / "out", Wishes(template=str(tmp_path / "mine.jinja")))
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"


@pytest.mark.parametrize("index", [True, False], ids=["with index", "by numbers alone"])
def test_missing_shards_are_named(release: Any, tmp_path: Path, index: bool) -> None:
    folder = release(shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    if not index:
        (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of its files .*: model-00002-of-00003\.safetensors"):
        original_to_hub(folder, tmp_path / "out", CLIP)
    assert left(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "long"])
def test_a_corrupt_file_is_refused(release: Any, tmp_path: Path, damage: str) -> None:
    folder = release()
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    damaged = {"cut": whole[:-5], "zeros": bytes(len(whole)), "empty": b"", "long": whole + b"more"}
    path.write_bytes(damaged[damage])
    with pytest.raises(CheckpointError, match="corrupt or incomplete safetensors file"):
        original_to_hub(folder, tmp_path / "out", CLIP)
    assert left(tmp_path) == []


def test_a_folder_without_weights_or_tokenizer_is_refused(release: Any, tmp_path: Path) -> None:
    folder = release()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="its tokenizer cannot be loaded"):
        original_to_hub(folder, tmp_path / "out", CLIP)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors or pytorch_model\*\.bin"):
        original_to_hub(folder, tmp_path / "out", CLIP)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        original_to_hub(tmp_path, tmp_path / "out", CLIP)


def test_a_target_with_files_is_left_alone(release: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for convert in (original_to_hub, hub_to_original):
        source = release() if convert is original_to_hub else tmp_path / "hub"
        with pytest.raises(CheckpointError, match="is not an empty folder"):
            convert(source, tmp_path / "out", *([CLIP] if convert is original_to_hub else []))
        if convert is original_to_hub:
            original_to_hub(source, tmp_path / "hub", CLIP)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_disk_that_runs_full_leaves_nothing(release: Any, tmp_path: Path) -> None:
    folder = release()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a write fails midway, as on a full disk
    try:
        with pytest.raises(CheckpointError, match="could not be finished, its disk is full"):
            original_to_hub(folder, tmp_path / "out", CLIP)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(tmp_path) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    message = rf"needs {2 * free:,} bytes, and [\d,]+ are free on its disk"
    with pytest.raises(CheckpointError, match=message), new_folder(tmp_path / "out", size_bytes=2 * free):
        pytest.fail("it was begun")
    assert left(tmp_path) == []


def test_what_the_original_cannot_say_is_refused(release: Any, tmp_path: Path) -> None:
    original_to_hub(release(), tmp_path / "hub", CLIP)
    for path in (tmp_path / "hub" / "original").iterdir():
        path.unlink()
    (tmp_path / "hub" / "original").rmdir()
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config | {"projector_hidden_act": "relu"}))
    with pytest.raises(CheckpointError, match="no way to say projector_hidden_act 'relu'"):
        hub_to_original(tmp_path / "hub", tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"is a llava_next_video on llama; supported are llava_next"):
        image_to_video(tmp_path / "hub", tmp_path / "out")
    assert left(tmp_path) == ["hub"]
