"""What fits a GPU is known before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from llava_next_video.convert import PRESETS
from llava_next_video.engine import Engine, EngineSettings
from llava_next_video.engine.memory import KV_BYTES_ON_CPU, estimate, page_bytes
from llava_next_video.engine.settings import SUITED, read_kv_dtype, read_quantize
from llava_next_video.errors import CapacityError, ConfigError
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.weights import skeleton

GPU = torch.device("cuda")


@pytest.fixture(scope="module")
def seven_billion() -> Any:
    """The published 7B without weights."""
    from transformers import CLIPVisionConfig, LlamaConfig

    preset = PRESETS["7b"]
    vision = CLIPVisionConfig(
        hidden_size=preset.vision_width,
        intermediate_size=preset.vision_inner,
        num_hidden_layers=preset.vision_layers,
        num_attention_heads=preset.vision_heads,
        image_size=preset.image,
        patch_size=preset.patch,
    )
    text = LlamaConfig(
        vocab_size=preset.vocabulary,
        hidden_size=preset.text_width,
        intermediate_size=preset.text_inner,
        num_hidden_layers=preset.text_layers,
        num_attention_heads=preset.text_heads,
        num_key_value_heads=preset.text_key_value_heads,
    )
    return skeleton(LlavaNextVideoConfig(vision, text))


def test_a_7b_takes_the_bytes_of_its_parameters(seven_billion: Any) -> None:
    # Vicuna-7B has 6.74e9 parameters, CLIP-L/336 0.30e9, the projector 0.02e9; two bytes each.
    assert estimate(seven_billion, SUITED["cuda"]).weights == pytest.approx(2 * 7.06e9, rel=0.01)
    # Keys and values: 2 x 32 layers x 4096 features x 2 bytes for each of 2048 tokens.
    assert estimate(seven_billion, SUITED["cuda"]).kv == 2048 * 2 * 32 * 4096 * 2
    asked = replace(SUITED["cuda"], kv_bytes=10**10)
    assert estimate(seven_billion, asked).kv == 10**10


def test_few_bits_take_a_half_and_a_quarter_of_the_layers(seven_billion: Any) -> None:
    wide, eight, four = (
        estimate(seven_billion, replace(SUITED["cuda"], quantize=quantize)).weights
        for quantize in ("none", "fp8", "int4")
    )
    # The products of 32 layers have 6.48e9 weights.
    assert wide - eight == pytest.approx(6.48e9, rel=0.02)
    assert wide - four == pytest.approx(1.5 * 6.48e9, rel=0.03)


def test_keys_and_values_in_eight_bits_take_half_and_a_scale(seven_billion: Any) -> None:
    asked = replace(SUITED["cuda"], kv_dtype="fp8")
    # 2048 tokens, keys and values of 32 layers and 32 heads: 128 bytes each and 4 of a scale.
    assert estimate(seven_billion, asked).kv == 2048 * 2 * 32 * 32 * (128 + 4)


def test_what_cannot_fit_is_refused_with_the_numbers(seven_billion: Any) -> None:
    needed = estimate(seven_billion, SUITED["cuda"])
    needed.refuse_beyond(24 * 1024**3, GPU)
    with pytest.raises(CapacityError, match=r"needed on cuda \(13\.2 of weights.*12\.0 are free; quantise"):
        needed.refuse_beyond(12 * 1024**3, GPU)


def test_keys_and_values_have_two_gibibytes_on_a_cpu_unless_told(model: Any) -> None:
    engine = Engine.from_model(model, EngineSettings(dtype="float32", context=64))
    of_page = page_bytes(engine.decoder, engine.settings)
    assert engine.pages.count == KV_BYTES_ON_CPU // of_page == 2 * 1024**3 // of_page


@pytest.mark.parametrize("quantize", ["fp8", "int4"])
def test_bits_that_a_cpu_cannot_multiply_are_refused(model: Any, quantize: Any) -> None:
    with pytest.raises(ConfigError, match='needs a GPU; on a CPU there is "int8"'):
        Engine.from_model(model, EngineSettings(quantize=quantize))


def test_a_cpu_stores_no_keys_in_eight_bits(model: Any) -> None:
    with pytest.raises(ConfigError, match="kv_dtype 'fp8' needs a GPU; on a CPU leave it out"):
        Engine.from_model(model, EngineSettings(kv_dtype="fp8"))


def test_a_precision_of_keys_is_read_by_its_name() -> None:
    assert [read_kv_dtype(name) for name in (None, "auto", "fp8")] == ["auto", "auto", "fp8"]
    with pytest.raises(ConfigError, match="unknown kv_dtype 'fp4'; known: auto, fp8"):
        read_kv_dtype("fp4")


def test_a_quantisation_is_read_by_its_name() -> None:
    assert [read_quantize(name) for name in (None, "int8", "int4", "fp8")] == ["none", "int8", "int4", "fp8"]
    with pytest.raises(ConfigError, match="unknown quantisation 'int3'; known: int8, int4, fp8"):
        read_quantize("int3")
