"""Adapters in both directions, and merged: PEFT and transformers' own class are the referees."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.llava_next_video import LlavaNextVideoForConditionalGeneration as TheirModel

from llava_next_video.cli import run
from llava_next_video.convert.presets import PRESETS
from llava_next_video.convert.random import write_random
from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.merging import merge_adapter
from llava_next_video.train.parts import add_adapters
from llava_next_video.train.recipe import LoraSettings

OursOrTheirs = type[LlavaNextVideoForConditionalGeneration] | type[TheirModel]
BOTH = [LlavaNextVideoForConditionalGeneration, TheirModel]
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def logits(model: Any) -> Tensor:
    """What a network says after a clip of noise (2 frames, 8 visual tokens)."""
    noise = torch.randn(1, 2, 3, 56, 56, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, *[model.config.video_token_id] * 8, 9, 30]])
    with torch.no_grad():
        return model.eval()(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=noise.to(model.dtype)
        ).logits


def shaken(model: Any) -> Any:
    """An adapter that has learned something: noise wherever it may learn."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def by_us(kind: OursOrTheirs, checkpoint: Path) -> Any:
    """As `train` adds adapters: language model and tower, the projector whole."""
    settings = LoraSettings(rank=4, alpha=8.0, parts=("language_model", "tower"))
    return shaken(add_adapters(kind.from_pretrained(checkpoint), settings, ["projector"]))


def by_peft(kind: OursOrTheirs, checkpoint: Path) -> Any:
    """As people do by themselves: names of modules only, and the head whole."""
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["lm_head"])
    return shaken(peft.get_peft_model(kind.from_pretrained(checkpoint), settings))


@pytest.mark.parametrize("wrap", [by_us, by_peft])
@pytest.mark.parametrize(("trained", "loaded"), [BOTH, BOTH[::-1]], ids=["ours to theirs", "theirs to ours"])
@pytest.mark.slow
def test_an_adapter_of_one_class_says_the_same_in_the_other_and_when_it_is_merged(
    tmp_path: Path, checkpoint: Path, trained: OursOrTheirs, loaded: OursOrTheirs, wrap: Any
) -> None:
    first = wrap(trained, checkpoint)
    said = logits(first)
    assert (said - logits(trained.from_pretrained(checkpoint))).abs().max() > 0.1
    first.save_pretrained(tmp_path / "adapter")
    second = peft.PeftModel.from_pretrained(loaded.from_pretrained(checkpoint), tmp_path / "adapter")
    torch.testing.assert_close(logits(second), said)
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged", base=str(checkpoint))
    for kind in BOTH:
        torch.testing.assert_close(logits(kind.from_pretrained(merged)), said, atol=1e-4, rtol=1e-4)
    LlavaNextVideoProcessor.from_pretrained(merged)


@pytest.mark.slow
def test_shards_layouts_and_number_formats_do_not_matter(tmp_path: Path, checkpoint: Path) -> None:
    adapted = by_us(LlavaNextVideoForConditionalGeneration, checkpoint)
    adapted.save_pretrained(tmp_path / "adapter")
    theirs = TheirModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    theirs.save_pretrained(tmp_path / "base", max_shard_size="200KB")
    LlavaNextVideoProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "base")
    merged = merge_adapter(tmp_path / "adapter", tmp_path / "merged", base=str(tmp_path / "base"))
    shards = [path.name for path in merged.glob("*.safetensors")]
    assert len(shards) == len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    weights = {key: value for name in shards for key, value in load_file(merged / name).items()}
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    expected = adapted.merge_and_unload().state_dict()
    name = "language_model.model.layers.1.mlp.down_proj.weight"  # The hub's name.
    ours = expected["model.language_model.layers.1.mlp.down_proj.weight"]
    torch.testing.assert_close(weights[name].float(), ours, atol=2e-2, rtol=1e-2)
    assert TheirModel.from_pretrained(merged).dtype == torch.bfloat16


@pytest.mark.slow
def test_an_adapter_with_the_names_of_transformers_4_is_merged(tmp_path: Path, checkpoint: Path) -> None:
    adapted = by_peft(TheirModel, checkpoint)
    adapted.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    renamed = {
        key.replace("model.model.language_model.", "model.language_model.model.")
        .replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
        .replace("model.lm_head.", "model.language_model.lm_head."): weight
        for key, weight in load_file(file).items()
    }
    assert "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight" in renamed
    save_file(renamed, file, {"format": "pt"})
    merged = merge_adapter(tmp_path, tmp_path / "merged", base=str(checkpoint))
    said = logits(TheirModel.from_pretrained(merged))
    torch.testing.assert_close(said, logits(adapted), atol=1e-4, rtol=1e-4)


@pytest.fixture
def adapter(tmp_path: Path, checkpoint: Path) -> Path:
    """A small adapter of the checkpoint, written by hand."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    name = "base_model.model.model.language_model.layers.0.mlp.up_proj"
    pair = {f"{name}.lora_A.weight": torch.ones(2, 64), f"{name}.lora_B.weight": torch.ones(128, 2)}
    save_file(pair, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "lora_alpha": 4, "base_model_name_or_path": str(checkpoint)})
    )
    return folder


def test_the_verb_merges_into_the_base_that_the_adapter_names(
    tmp_path: Path, checkpoint: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["lnv", "train", "merge", str(adapter), str(tmp_path / "out")])
    assert run() == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "out"))
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    assert [key for key in before if not before[key].equal(after[key])] == [name]
    # alpha / rank = 2, and each product of ones over rank 2 is 2.
    torch.testing.assert_close(after[name], (before[name].float() + 4).to(before[name].dtype))


def test_what_cannot_be_merged_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, checkpoint: Path, adapter: Path
) -> None:
    def refused(sentence: str, base: Path | None, kind: type[Exception] = CheckpointError) -> None:
        with pytest.raises(kind, match=sentence) as refusal:
            merge_adapter(adapter, tmp_path / "out", base=None if base is None else str(base))
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "out").exists()

    wide = tmp_path / "wide"
    shutil.copytree(checkpoint, wide)
    weights = load_file(checkpoint / "model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: torch.zeros(256, 64)}, wide / "model.safetensors", {"format": "pt"})
    refused(r"is for another model: .*up_proj\.weight has shape \(256, 64\), not \(128, 64\)", wide)
    save_file({key: value for key, value in weights.items() if key != name}, wide / "model.safetensors")
    refused(r"is for another model: it changes model\.language_model\.layers\.0\.mlp\.up_proj", wide)
    other = tmp_path / "other"
    write_random(other, PRESETS["tiny"], seed=8)
    (adapter / "base.json").write_text(json.dumps({"model": "first", "fingerprint": "f"}))
    refused("was trained on first, and .*other has other weights; name its base with --model", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"quantization_config": {"load_in_4bit": True}}))
    refused("is quantised, which an adapter cannot be merged into", other)
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 4}')
    refused("does not say which model it is for; name it with --model", None, ConfigError)
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="taken exists already"):
        merge_adapter(adapter, tmp_path / "taken", base=str(checkpoint))
