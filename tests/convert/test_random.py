"""A random checkpoint loads like a published one."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer
from transformers import LlavaNextVideoForConditionalGeneration as TheirModel

from llava_next_video.convert import PRESETS, write_random
from llava_next_video.convert.tensors import SHARD_BYTES, shards
from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor


def test_it_loads_in_transformers_own_class_with_the_same_weights(tiny_checkpoint: Path) -> None:
    ours = LlavaNextVideoForConditionalGeneration.from_pretrained(tiny_checkpoint)
    theirs = TheirModel.from_pretrained(tiny_checkpoint)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_config_tokenizer_and_processor_agree_on_placeholders(tiny_checkpoint: Path) -> None:
    config = LlavaNextVideoForConditionalGeneration.from_pretrained(tiny_checkpoint).config
    processor = LlavaNextVideoProcessor.from_pretrained(tiny_checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    assert config.video_token_id == processor.video_token_id == tokenizer.convert_tokens_to_ids("<video>")
    assert config.image_token_id == processor.image_token_id == tokenizer.convert_tokens_to_ids("<image>")
    assert len(tokenizer) <= config.text_config.vocab_size


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    write_random(tmp_path / "again", PRESETS["tiny"], seed=0)
    write_random(tmp_path / "other", PRESETS["tiny"], seed=1)
    first, again, other = (
        (folder / "model.safetensors").read_bytes()
        for folder in (tiny_checkpoint, tmp_path / "again", tmp_path / "other")
    )
    assert again == first
    assert first != other


def test_the_dtype_is_the_one_in_the_file(tmp_path: Path) -> None:
    write_random(tmp_path / "half", PRESETS["tiny"], dtype="bfloat16")
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_the_7b_preset_has_the_vocabulary_of_the_release() -> None:
    # Llama's 32,000 entries, <video>, <image> and a padding token, rounded up to a multiple of 64.
    assert PRESETS["7b"].vocabulary == -(-(32_000 + 3) // 64) * 64


def test_shards_hold_every_weight_once_and_stay_below_the_limit() -> None:
    sizes = {f"layer.{n}": 400 * 2**20 for n in range(12)}
    parts = list(shards(sizes, SHARD_BYTES))
    assert [key for part in parts for key in part] == list(sizes)
    assert all(len(part) * 400 * 2**20 <= SHARD_BYTES for part in parts)
    assert len(parts) == 3  # 5 fit into 2 GiB


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        write_random(tmp_path, PRESETS["tiny"])
    assert [file.name for file in tmp_path.iterdir()] == ["keep.txt"]


def test_an_unknown_dtype_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown dtype 'int3'; known: float32"):
        write_random(tmp_path / "out", PRESETS["tiny"], dtype="int3")
    assert not list(tmp_path.iterdir())
