"""Fewer bits: what is quantised, that it can be saved, and what is refused.

The ids after a round trip are compared with those before it; layouts and bytes with arithmetic.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.models.llava_next_video import LlavaNextVideoForConditionalGeneration as TheirModel

from llava_next_video.errors import ConfigError, MissingExtraError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.layouts import on_hub
from llava_next_video.model.quantised import UNQUANTISED, quantised_table, quantised_text, sparing

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

FOUR = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
SETTINGS: dict[str, dict[str, Any]] = {
    "the page's 4 bits": FOUR | {"bnb_4bit_compute_dtype": torch.float16},
    "4 bits, double": FOUR | {"bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16},
    "4 bits, fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "8 bits": {"load_in_8bit": True},
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def load(folder: Path, **settings: Any) -> LlavaNextVideoForConditionalGeneration:
    return LlavaNextVideoForConditionalGeneration.from_pretrained(folder, **settings).eval()


def clip_prompt(model: nn.Module) -> dict[str, Tensor]:
    """Two frames of noise (2 x 4 visual tokens) and a few words."""
    config: Any = model.config
    noise = torch.randn(1, 2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1, 40, *[config.video_token_index] * 8, 55, 60, 61]])
    device = next(model.parameters()).device
    return {
        "input_ids": ids.to(device),
        "attention_mask": torch.ones_like(ids).to(device),
        "pixel_values_videos": noise.to(device, model.dtype),
    }


def answer(model: Any) -> list[int]:
    return model.generate(**clip_prompt(model), max_new_tokens=12, min_new_tokens=12, do_sample=False)[
        0
    ].tolist()


def kinds(model: nn.Module) -> dict[str, set[str]]:
    return {row.part: set(row.kinds) for row in quantised_table(model)}


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_was_saved_after_an_answer_gives_the_same_answer(
    tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, Any], device: str
) -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    config = BitsAndBytesConfig(**settings)
    model = load(tiny_checkpoint, quantization_config=config, device_map={"": device}, dtype=torch.bfloat16)
    kind = "Linear8bitLt" if "load_in_8bit" in settings else "Linear4bit"
    assert kinds(model) == {
        "vision_tower": {"Linear"},
        "multi_modal_projector": {"Linear"},
        "language_model": {kind},
        "lm_head": {"Linear"},
    }
    model.save_pretrained(tmp_path / "before")
    first = answer(model)
    model.save_pretrained(tmp_path / "after")
    assert answer(model) == first
    assert answer(load(tmp_path / "after", device_map={"": device})) == first
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("before", "after"))
    assert before.keys() == after.keys()
    assert [name for name in before if not before[name].equal(after[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["4 bits, double", "8 bits"])
def test_transformers_reads_what_we_quantised(tiny_checkpoint: Path, tmp_path: Path, settings: str) -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    model = load(tiny_checkpoint, quantization_config=BitsAndBytesConfig(**SETTINGS[settings]))
    model.save_pretrained(tmp_path)
    theirs = TheirModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ours, others = (one(**clip_prompt(model)).logits for one in (model, theirs))
    assert ours.equal(others)


@pytest.mark.slow
def test_a_quantised_folder_with_the_names_of_older_versions_loads(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    model = load(tiny_checkpoint, quantization_config=BitsAndBytesConfig(**SETTINGS["4 bits, double"]))
    model.save_pretrained(tmp_path)
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    save_file({on_hub(name): weight for name, weight in load_file(file).items()}, file, {"format": "pt"})
    told = json.loads(config.read_text())
    told["quantization_config"]["llm_int8_skip_modules"] = [
        "vision_tower",
        "multi_modal_projector",
        "lm_head",
    ]
    config.write_text(json.dumps(told))
    again = load(tmp_path)
    assert kinds(again) == kinds(model)
    assert answer(again) == answer(model)


@pytest.mark.slow
def test_the_table_says_what_the_weights_take(tiny_checkpoint: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    model = load(tiny_checkpoint, quantization_config=BitsAndBytesConfig(**FOUR), dtype=torch.float32)
    rows = {row.part: row for row in quantised_table(model)}
    text = model.config.text_config
    width, inner, other = text.hidden_size, text.intermediate_size, text.hidden_size // 2  # 2 of 4 heads.
    matrices = text.num_hidden_layers * (2 * width * width + 2 * width * other + 3 * width * inner)
    whole = text.vocab_size * width + (2 * text.num_hidden_layers + 1) * width
    # Half a byte a weight and four bytes for the scale of 64; embeddings and norms have all their bits.
    assert rows["language_model"].megabytes * 1e6 == matrices / 2 + 4 * matrices / 64 + 4 * whole
    assert rows["language_model"].kinds == {"Linear4bit": 7 * text.num_hidden_layers}
    assert quantised_text(list(rows.values())).splitlines()[3].split()[-2:] == ["14", "Linear4bit"]


@pytest.mark.slow
def test_a_head_that_shares_its_weights_is_never_quantised(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    make.ours(make.tiny(tie_word_embeddings=True)).save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["vision_tower"])
    model = load(tmp_path, quantization_config=config)
    assert kinds(model)["lm_head"] == {"Linear"}
    assert kinds(model)["vision_tower"] == {"Linear"}
    assert kinds(model)["multi_modal_projector"] == {"Linear8bitLt"}
    assert config.llm_int8_skip_modules == ["vision_tower"]


def test_a_list_of_modules_replaces_ours_under_todays_names() -> None:
    given = BitsAndBytesConfig(
        load_in_8bit=True, llm_int8_skip_modules=["vision_tower", "language_model.lm_head"]
    )
    assert sparing(given, tied=False).llm_int8_skip_modules == ["model.vision_tower", "lm_head"]
    assert sparing({"load_in_4bit": True}, tied=False).llm_int8_skip_modules == list(UNQUANTISED)


@pytest.mark.parametrize("given", [BitsAndBytesConfig(**FOUR), {"load_in_8bit": True}])
def test_without_bitsandbytes_one_sentence_names_the_extra(
    tiny_checkpoint: Path, given: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest)
    )
    with pytest.raises(MissingExtraError) as refusal:
        load(tiny_checkpoint, quantization_config=given)
    assert str(refusal.value) == (
        "weights quantised by bitsandbytes need bitsandbytes; pip install 'llava-next-video[quant]'"
    )


def test_a_config_of_an_unknown_kind_is_one_sentence(tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"^quantization_config: .*quant_method") as refusal:
        load(tiny_checkpoint, quantization_config={"bits": 4})
    assert "\n" not in str(refusal.value)


def test_bitsandbytes_weights_stay_on_their_device(tiny_checkpoint: Path) -> None:
    places = {"model.vision_tower": "disk", "": "cpu"}
    with pytest.raises(
        ConfigError, match="cannot be quantised with this BitsAndBytesConfig here: Some modules"
    ) as it:
        load(tiny_checkpoint, quantization_config=BitsAndBytesConfig(**FOUR), device_map=places)
    assert "\n" not in str(it.value)


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available(),
    reason="it can be used here",
)
def test_flash_attention_that_cannot_be_used_is_one_sentence(tiny_checkpoint: Path) -> None:
    with pytest.raises(
        MissingExtraError, match=r"^attn_implementation='flash_attention_2' cannot be used: "
    ) as it:
        load(tiny_checkpoint, attn_implementation="flash_attention_2", dtype=torch.float16)
    assert "\n" not in str(it.value)
    assert str(it.value).endswith("install flash-attn for a CUDA device, or leave the argument out (sdpa)")


def test_a_quantised_folder_that_cannot_be_loaded_here_is_one_sentence(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for path in tiny_checkpoint.iterdir():
        (tmp_path / path.name).symlink_to(path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    told = config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="is quantised, and cannot be loaded here: ") as it:
        load(tmp_path)
    assert "\n" not in str(it.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_answers_and_is_saved_as_it_is(
    tiny_checkpoint: Path, tmp_path: Path, dtype: torch.dtype, device: str
) -> None:
    model = load(tiny_checkpoint, dtype=dtype, device_map={"": device})
    model.save_pretrained(tmp_path)
    again = load(tmp_path, device_map={"": device})
    assert again.dtype == dtype
    assert answer(again) == answer(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "memory", [{"cpu": "400KB"}, pytest.param({0: "300KB", "cpu": "400KB"}, marks=pytest.mark.gpu)], ids=str
)
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules:UserWarning")
def test_what_does_not_fit_is_put_on_the_disk_and_answers_the_same(
    tiny_checkpoint: Path, tmp_path: Path, memory: dict[Any, str]
) -> None:
    whole = load(tiny_checkpoint)
    spread = load(
        tiny_checkpoint, device_map="auto", max_memory=memory, offload_folder=str(tmp_path / "offload")
    )
    places = set(spread.hf_device_map.values())
    assert places == {"disk", *memory}
    assert answer(spread) == answer(whole)
    spread.save_pretrained(tmp_path / "saved")
    saved = load(tmp_path / "saved").state_dict()
    assert all(weight.equal(saved[name]) for name, weight in whole.state_dict().items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["int8 weights", "int8 weights and activations", "int4 weights"])
def test_torchao_quantises_saves_and_gives_the_same_answer(
    tiny_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    quantization = pytest.importorskip(
        "torchao.quantization", reason="torchao, which no extra needs, is not installed"
    )
    from torchao.quantization.granularity import PerGroup
    from transformers import TorchAoConfig

    types = {
        "int8 weights": quantization.Int8WeightOnlyConfig(),
        "int8 weights and activations": quantization.Int8DynamicActivationInt8WeightConfig(),
        "int4 weights": quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
    }
    model = load(
        tiny_checkpoint, quantization_config=TorchAoConfig(quant_type=types[kind]), dtype=torch.float32
    )
    assert kinds(model)["language_model"] < {"Int8Tensor", "IntxUnpackedToInt8Tensor"}
    assert {*kinds(model)["vision_tower"], *kinds(model)["lm_head"]} == {"Linear"}
    model.save_pretrained(tmp_path)
    assert answer(load(tmp_path, dtype=torch.float32)) == answer(model)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what torchao cannot do on a CPU")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_torchao_cannot_do_here_is_one_sentence(tiny_checkpoint: Path) -> None:
    quantization = pytest.importorskip(
        "torchao.quantization", reason="torchao, which no extra needs, is not installed"
    )
    from transformers import TorchAoConfig

    with pytest.raises(
        ConfigError, match="cannot be quantised with this TorchAoConfig here: Requires mslk"
    ) as it:
        load(
            tiny_checkpoint, quantization_config=TorchAoConfig(quant_type=quantization.Int4WeightOnlyConfig())
        )
    assert "\n" not in str(it.value)
