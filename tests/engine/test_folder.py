"""An engine straight from the files of a checkpoint, with and without an adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engine.conftest import clip, picture, prompt, reference, tiny, words

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model.adapter import Adapter
from llava_next_video.size import Size

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16)
INPUTS = prompt(words(1, 3), clip(1, 5), words(2, 4), picture(2, Size(80, 50)), words(3, 3))


def answer(engine: Engine) -> list[int]:
    return list(engine.generate([INPUTS], SamplingOptions(max_new_tokens=10))[0].ids)


@pytest.mark.parametrize(
    "make",
    [
        {},
        {"family": "qwen2", "text": {"tie_word_embeddings": True}, "tie_word_embeddings": True},
        {"vision": {"tower": "siglip"}, "vision_feature_select_strategy": "full"},
    ],
    ids=["clip and llama", "tied qwen2", "siglip"],
)
@pytest.mark.parametrize("shard", ["60KB", "1GB"])
def test_the_files_make_the_engine_that_the_loaded_network_makes(
    tmp_path: Path, make: dict[str, Any], shard: str
) -> None:
    model = tiny(**make)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert answer(Engine.from_folder(tmp_path, SETTINGS)) == reference(model, INPUTS, 10)


def test_end_tokens_are_those_of_the_folder(tmp_path: Path) -> None:
    model = tiny()
    third = reference(model, INPUTS, 10)[2]
    model.generation_config.eos_token_id = [2, third]
    model.save_pretrained(tmp_path)
    found = answer(Engine.from_folder(tmp_path, SETTINGS))
    assert third not in found
    assert len(found) <= 2


def saved(folder: Path, change: Any) -> Path:
    """A folder whose weights were changed."""
    tiny().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda weights: weights.pop(next(k for k in weights if "layers.1.mlp.up" in k)), "lacks weights"),
        (lambda weights: weights.update(stranger=torch.zeros(1)), "no place for: stranger"),
        (
            lambda weights: weights.update({k: weights[k][:4] for k in weights if "newline" in k}),
            "does not fit",
        ),
    ],
    ids=["missing", "unknown", "of another size"],
)
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        Engine.from_folder(saved(tmp_path, change), SETTINGS)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="corrupt or incomplete"):
        Engine.from_folder(tmp_path, SETTINGS)


def test_position_ids_that_older_checkpoints_have_are_passed_over(tmp_path: Path) -> None:
    name = "vision_tower.vision_model.embeddings.position_ids"
    folder = saved(tmp_path, lambda weights: weights.update({name: torch.arange(17)[None]}))
    assert answer(Engine.from_folder(folder, SETTINGS)) == reference(tiny(), INPUTS, 10)


def test_weights_that_are_quantised_already_are_refused() -> None:
    model = tiny()
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ConfigError, match="quantised already"):
        Engine.from_model(model, SETTINGS)


def adapted(folder: Path, **settings: Any) -> Any:
    """transformers' network with a LoRA adapter of PEFT, saved to `folder`."""
    import peft

    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=r".*language_model\..*\.(q_proj|v_proj|down_proj)", **settings
    )
    model = peft.get_peft_model(tiny(), config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.5)
        elif parameter.requires_grad:
            parameter.data.mul_(1.5)
    model.save_pretrained(folder)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"modules_to_save": ["multi_modal_projector"]},
        {"rank_pattern": {"down_proj": 2}},
    ],
    ids=str,
)
def test_an_adapter_answers_as_peft_merges_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    tiny().save_pretrained(tmp_path / "whole")
    model = adapted(tmp_path / "adapter", **settings)
    merged = reference(model.merge_and_unload(), INPUTS, 10)
    assert merged != reference(tiny(), INPUTS, 10)
    adapter = Adapter.read(tmp_path / "adapter")
    assert answer(Engine.from_folder(tmp_path / "whole", SETTINGS, adapter=adapter)) == merged
    loaded = tiny()
    adapter.merge_into(loaded)
    assert reference(loaded, INPUTS, 10) == merged


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_what_is_not_plain_lora_for_this_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        Adapter.read(tmp_path)
    adapted(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for change, sentence in (
        ({"peft_type": "IA3"}, "IA3 adapter; only LORA"),
        ({"use_dora": True}, "use_dora True, which is not plain LoRA"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=sentence):
            Adapter.read(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tiny(text={"num_hidden_layers": 1}).save_pretrained(tmp_path / "shallow")
    with pytest.raises(CheckpointError, match="is for another model"):
        Engine.from_folder(tmp_path / "shallow", SETTINGS, adapter=Adapter.read(tmp_path))
    tiny(text={"intermediate_size": 64}).save_pretrained(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match=r"has shape \(64, 64\), not \(64, 96\)"):
        Engine.from_folder(tmp_path / "narrow", SETTINGS, adapter=Adapter.read(tmp_path))


MEASURED = """
import sys
from pathlib import Path
import torch
from llava_next_video.engine import Engine, EngineSettings

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

Engine.from_folder(Path(sys.argv[1]), EngineSettings(dtype="float32", quantize=sys.argv[2], kv_bytes=2**20))
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmHWM")
engine = Engine.from_folder(
    Path(sys.argv[3]), EngineSettings(dtype="float32", quantize=sys.argv[2], kv_bytes=2**20)
)
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("quantize", "at_most"), [("none", 1.5), ("int8", 0.8)])
def test_loading_never_holds_a_second_copy(
    tmp_path: Path, tiny_checkpoint: Path, quantize: str, at_most: float
) -> None:
    from llava_next_video.convert import PRESETS, write_random

    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the highest memory use")
    shape = replace(
        PRESETS["mid"], text_width=1024, text_inner=3072, text_heads=16, text_layers=8, vocabulary=4096
    )
    written = write_random(tmp_path / "mid", shape)
    command = [sys.executable, "-c", MEASURED, tiny_checkpoint, quantize, tmp_path / "mid"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < at_most * written.size_bytes, (done.stdout, written.size_bytes)
