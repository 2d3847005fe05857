"""Model folders: four layouts in, the hub's layout out, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.llava_next_video import LlavaNextVideoForConditionalGeneration as TheirModel

from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration, LlavaNextVideoModel

LAYOUTS = {
    "hub": ("language_model.model.", "language_model.lm_head.", "vision_tower.vision_model.", ""),
    "fresh from transformers 5": ("language_model.model.", "language_model.lm_head.", "vision_tower.", ""),
    "memory of 4.52": ("model.language_model.", "lm_head.", "model.vision_tower.vision_model.", "model."),
    "memory of 5": ("model.language_model.", "lm_head.", "model.vision_tower.", "model."),
}
"""Prefixes of the text weights, the head, the tower, and the rest."""


def renamed(weights, layout):
    """Weights from memory under the names of a layout."""
    decoder, head, tower, rest = LAYOUTS[layout]
    found = {}
    for key, weight in weights.items():
        for prefix, replacement in (
            ("model.language_model.", decoder),
            ("lm_head.", head),
            ("model.vision_tower.", tower),
            ("model.", rest),
        ):
            if key.startswith(prefix):
                found[replacement + key.removeprefix(prefix)] = weight.clone()
                break
    assert len(found) == len(weights)
    return found


def written(folder, config, weights, shards=1):
    """A folder with config.json and those weights."""
    folder.mkdir()
    config.save_pretrained(folder)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder
    index = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: weights[key] for key in list(weights)[shard::shards]}
        save_file(part, folder / name, {"format": "pt"})
        index |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def assert_same_weights(found, expected):
    weights = found.state_dict()
    assert weights.keys() == expected.keys()
    for key, weight in expected.items():
        assert torch.equal(weights[key], weight), key


@pytest.fixture(scope="module")
def model(make):
    return make.ours(make.tiny())


@pytest.fixture
def folder(tmp_path, model):
    """A folder that our network was saved to."""
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_exactly(tmp_path, model, layout, shards):
    folder = written(tmp_path / "given", model.config, renamed(model.state_dict(), layout), shards)
    loaded = LlavaNextVideoForConditionalGeneration.from_pretrained(folder)
    assert_same_weights(loaded, model.state_dict())
    loaded.save_pretrained(tmp_path / "saved")
    assert (
        load_file(tmp_path / "saved" / "model.safetensors").keys()
        == renamed(model.state_dict(), "hub").keys()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_network_without_head_loads_from_every_layout(tmp_path, model, layout):
    folder = written(tmp_path / "given", model.config, renamed(model.state_dict(), layout))
    loaded = LlavaNextVideoModel.from_pretrained(folder)
    assert_same_weights(loaded, model.model.state_dict())
    loaded.save_pretrained(tmp_path / "headless")
    assert_same_weights(LlavaNextVideoModel.from_pretrained(tmp_path / "headless"), model.model.state_dict())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_dict_of_every_layout_loads_as_when_training_resumes(make, model, layout):
    fresh = make.ours(model.config, seed=1)
    result = fresh.load_state_dict(renamed(model.state_dict(), layout))
    assert not result.missing_keys
    assert_same_weights(fresh, model.state_dict())


@pytest.mark.parametrize("tower", ["clip", "siglip"])
@pytest.mark.parametrize(
    "settings", [{}, {"spatial_pool_mode": "conv"}, {"tie_word_embeddings": True}], ids=str
)
def test_transformers_loads_what_we_save(make, tmp_path, tower, settings):
    mine = make.ours(make.tiny(tower, **settings))
    mine.save_pretrained(tmp_path, max_shard_size="60KB")
    theirs, info = TheirModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    inputs = make.prompt(theirs, [[1, ("image", 40, 90), 9, ("video", 2), 5]])
    with torch.no_grad():
        torch.testing.assert_close(mine(**inputs).logits, theirs(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert_same_weights(LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path), mine.state_dict())


def test_we_load_what_transformers_saves(make, tmp_path):
    mine, theirs = make.both(make.tiny())
    theirs.save_pretrained(tmp_path)
    loaded = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path)
    assert_same_weights(loaded, mine.state_dict())


def test_settings_of_ours_survive_a_round_trip(make, tmp_path):
    config = make.tiny(video_newline="grid", pool_before_projector=False, spatial_pool_mode="bilinear")
    make.ours(config).save_pretrained(tmp_path)
    loaded = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path).config
    assert (loaded.video_newline, loaded.pool_before_projector, loaded.spatial_pool_mode) == (
        "grid",
        False,
        "bilinear",
    )


def test_auto_classes_know_the_folder_and_the_config(make, folder):
    theirs = AutoConfig.from_pretrained(folder)
    assert theirs.video_token_index == 100
    assert isinstance(
        AutoModelForImageTextToText.from_config(make.tiny()), LlavaNextVideoForConditionalGeneration
    )
    assert isinstance(LlavaNextVideoForConditionalGeneration(theirs), LlavaNextVideoForConditionalGeneration)


def test_dtype_and_device_map_are_honoured(folder):
    loaded = LlavaNextVideoForConditionalGeneration.from_pretrained(
        folder, torch_dtype=torch.bfloat16, device_map="cpu", attn_implementation="eager"
    )
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert loaded.model.language_model.config._attn_implementation == "eager"
    ids = torch.tensor([[1, *[100] * 8, 5]])
    clip = torch.randn(1, 2, 3, 56, 56)  # float pixels, half precision weights
    assert loaded(ids, pixel_values_videos=clip).logits.dtype == torch.bfloat16


def without(folder, *keys):
    weights = load_file(folder / "model.safetensors")
    for key in keys:
        del weights[key]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("kind", [LlavaNextVideoForConditionalGeneration, LlavaNextVideoModel])
def test_missing_weights_are_named_and_not_made_up(folder, kind):
    without(folder, "image_newline", "multi_modal_projector.linear_2.bias")
    with pytest.raises(CheckpointError, match=r"image_newline, .*multi_modal_projector\.linear_2\.bias"):
        kind.from_pretrained(folder)


def test_unknown_weights_are_named(folder):
    weights = load_file(folder / "model.safetensors") | {"adapter.weight": torch.zeros(2)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no place for: adapter\.weight"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


def test_buffers_of_older_versions_are_harmless(folder, model):
    weights = load_file(folder / "model.safetensors") | {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2),
        "vision_tower.vision_model.embeddings.position_ids": torch.zeros(1, 17, dtype=torch.long),
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert_same_weights(LlavaNextVideoForConditionalGeneration.from_pretrained(folder), model.state_dict())


def test_weights_of_another_size_are_named_with_both_sizes(folder):
    weights = load_file(folder / "model.safetensors") | {"image_newline": torch.zeros(5)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"image_newline \(5,\) for \(64,\)"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["cut", "zeros", "empty"])
def test_a_corrupt_file_is_refused(folder, damage):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "empty": b""}[damage])
    with pytest.raises(CheckpointError, match="corrupt or incomplete"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


def test_a_missing_shard_is_refused(tmp_path, model):
    folder = written(tmp_path / "given", model.config, renamed(model.state_dict(), "hub"), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


def test_pickles_are_never_opened(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickles \(pytorch_model.bin\)"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="use_safetensors=False"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder, use_safetensors=False)


def test_gguf_files_are_refused(folder):
    with pytest.raises(CheckpointError, match=r"gguf_file='a\.gguf': GGUF is not read"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder, gguf_file="a.gguf")


def test_folders_that_hold_no_model_of_ours_are_refused(tmp_path, folder):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is no folder"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path / "nowhere")
    for text, message in (
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"model_type": "llava"}', "'llava'"),
        ('{"model_type": "llava", "mm_vision_tower": "x"}', "convert original"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


def test_a_config_with_an_unknown_mode_is_refused_when_loading(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"spatial_pool_mode": "median"}))
    with pytest.raises(ConfigError, match="unknown spatial_pool_mode 'median'; choose one of average"):
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder)


def test_saving_over_a_sharded_folder_leaves_no_old_shards(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
def test_weights_that_a_device_map_placed_can_be_saved(folder, tmp_path, model):
    placed = LlavaNextVideoForConditionalGeneration.from_pretrained(folder, device_map="cpu")
    placed.save_pretrained(tmp_path / "again")
    again = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path / "again")
    assert_same_weights(again, model.state_dict())
    assert "language_model.lm_head.weight" in load_file(tmp_path / "again" / "model.safetensors")
