"""Where a checkpoint comes from, and what is added to it."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from llava_next_video.assistant import VideoAssistant
from llava_next_video.assistant.loading import checkpoint_folder
from llava_next_video.errors import CheckpointError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration


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
    with pytest.raises(CheckpointError, match="somebody/else cannot be loaded"):
        checkpoint_folder("somebody/else")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_both_networks_answer_with_an_adapter(tmp_path: Path, tiny_checkpoint: Path, square_clip: Path):
    import peft

    model = LlavaNextVideoForConditionalGeneration.from_pretrained(tiny_checkpoint)
    config = peft.LoraConfig(r=4, lora_alpha=64, target_modules=r".*language_model\..*_proj")
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    adapted.save_pretrained(tmp_path)
    plain, fast, slow = (
        VideoAssistant.load(tiny_checkpoint, **settings)
        .ask(square_clip, "What moves?", max_new_tokens=12)
        .text
        for settings in ({}, {"adapter": tmp_path}, {"adapter": tmp_path, "reference": True})
    )
    assert fast == slow != plain
