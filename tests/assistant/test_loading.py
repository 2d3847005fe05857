"""Where a checkpoint comes from, and what is added to it."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llava_next_video.assistant import VideoAssistant
from llava_next_video.assistant.reference import ReferenceNetwork
from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.checkpoint import checkpoint_folder
from llava_next_video.model.quantised import quantised_table


def test_a_checkpoint_of_the_hub_is_found_where_it_was_fetched_to(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    fetched = tmp_path / "models--somebody--tiny"
    shutil.copytree(tiny_checkpoint, fetched / "snapshots" / "abc")
    (fetched / "refs").mkdir()
    (fetched / "refs" / "main").write_text("abc")
    assert checkpoint_folder("somebody/tiny") == fetched / "snapshots" / "abc"
    assert VideoAssistant.load("somebody/tiny").network is not None
    with pytest.raises(CheckpointError, match="somebody/else is no folder here and was never fetched, and"):
        VideoAssistant.load("somebody/else")


def test_an_answer_is_shown_without_its_pixels(square_clip: Path):
    answer = VideoAssistant.load().ask([square_clip, np.zeros((9, 9, 3), np.uint8)], "?", max_new_tokens=1)
    assert len(repr(answer)) < 1500
    assert "array(" not in repr(answer)
    assert str(square_clip) in repr(answer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_both_networks_answer_with_an_adapter(tmp_path: Path, tiny_checkpoint: Path, square_clip: Path):
    import peft

    model = LlavaNextVideoForConditionalGeneration.from_pretrained(tiny_checkpoint)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=r".*language_model\..*_proj")
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(4)  # With other noise two ids may be as good as equally likely.
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    adapted.save_pretrained(tmp_path)
    plain, fast, slow = (
        VideoAssistant.load(tiny_checkpoint, dtype="float32", **settings)
        .ask(square_clip, "What moves?", max_new_tokens=12)
        .text
        for settings in ({}, {"adapter": tmp_path}, {"adapter": tmp_path, "reference": True})
    )
    assert fast == slow != plain


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("quantize", "kind"), [("bnb-4bit", "Linear4bit"), ("bnb-8bit", "Linear8bitLt")])
def test_a_quantised_folder_answers_as_what_was_quantised_when_it_was_loaded(
    tmp_path: Path, tiny_checkpoint: Path, square_clip: Path, quantize: str, kind: str
):
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    first = VideoAssistant.load(tiny_checkpoint, quantize=quantize)
    answer = first.ask(square_clip, "What moves?", max_new_tokens=8)
    assert isinstance(first.network, ReferenceNetwork)
    rows = {row.part: dict(row.kinds) for row in quantised_table(first.network.model)}
    assert rows["language_model"] == {kind: 14}
    first.network.model.save_pretrained(tmp_path)
    first.processor.save_pretrained(tmp_path)
    again = VideoAssistant.load(tmp_path)
    assert again.ask(square_clip, "What moves?", max_new_tokens=8).text == answer.text
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter")
    with pytest.raises(
        ConfigError, match="cannot be merged into quantised weights; merge it into the original"
    ):
        VideoAssistant.load(tmp_path, adapter=tmp_path / "adapter")


def write_adapter(folder: Path) -> None:
    name = "base_model.model.model.language_model.layers.0.mlp.up_proj"
    down, up = torch.zeros(2, 64), torch.zeros(128, 2)
    save_file(
        {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 4}')


def test_an_adapter_in_place_of_a_checkpoint_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is an adapter; merge it into its base"):
        VideoAssistant.load(tmp_path)
