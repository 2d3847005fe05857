"""The engine gives the ids of transformers' `generate`, whatever runs beside it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from tests.engine.conftest import clip, picture, prompt, reference, tiny, words

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.inputs import ModelInputs
from llava_next_video.size import Size

_ANSWERS: dict[tuple[Any, ...], list[int]] = {}


def expected(model: Any, inputs: ModelInputs, new_tokens: int) -> list[int]:
    key = (inputs.ids, *(medium.key for medium in inputs.media), new_tokens)
    if key not in _ANSWERS:
        _ANSWERS[key] = reference(model, inputs, new_tokens)
    return _ANSWERS[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Some requests, when they come, which are aborted when, and the size of the engine."""

    prompts: list[ModelInputs]
    new_tokens: list[int]
    arrival: list[int]
    aborted: dict[int, int]
    settings: EngineSettings


def page_bytes(model: Any, page_tokens: int) -> int:
    text = model.config.text_config
    width = text.hidden_size // text.num_attention_heads
    return text.num_hidden_layers * 2 * text.num_key_value_heads * width * page_tokens * 4


def random_mix(model: Any, seed: int) -> Mix:
    """Texts, pictures, clips and shared clips of different lengths, on an engine that is often too small."""
    draw = random.Random(seed)
    media = [clip(draw.randrange(40), draw.randint(1, 9)) for _ in range(2)]
    media += [picture(draw.randrange(40), Size(draw.randint(20, 120), draw.randint(20, 120)))]
    prompts = []
    for _ in range(draw.randint(2, 8)):
        head = words(draw.randrange(3), draw.choice([1, 3, 20, 210]))
        chosen = draw.choices(media, k=draw.choice([0, 1, 1, 1, 2]))
        parts = [
            part for medium in chosen for part in (medium, words(draw.randrange(9), draw.randint(1, 12)))
        ]
        prompts.append(prompt(head, *parts))
    new_tokens = [draw.choice([1, 5, 30, 60]) for _ in prompts]
    page = draw.choice([4, 16])
    longest = max(len(p.ids) + new for p, new in zip(prompts, new_tokens, strict=True))
    enough = -(-longest // page)
    settings = EngineSettings(
        dtype="float32",
        page_tokens=page,
        kv_bytes=page_bytes(model, page)
        * draw.choice([enough, enough + 1, enough + 3, enough * 3 // 2, 20 * enough]),
        token_budget=draw.choice([8, 17, 64, 512]),
        frame_budget=draw.choice([1, 3, 8]),
        max_requests=draw.choice([1, 4, 8, 8]),
        feature_bytes=draw.choice([0, 1024, 1 << 20]),
        share_prefixes=draw.random() < 0.9,
        ahead=draw.random() < 0.5,
    )
    arrival = [draw.choice([0, 0, draw.randint(1, 15)]) for _ in prompts]
    aborted = {index: draw.randint(0, 20) for index in range(len(prompts)) if draw.random() < 0.15}
    return Mix(prompts=prompts, new_tokens=new_tokens, arrival=arrival, aborted=aborted, settings=settings)


def play(model: Any, mix: Mix) -> tuple[Engine, dict[int, list[int]], set[int]]:
    """Run a mix; gives the answers by number of the prompt, and which of them were cut by an abort."""
    engine = Engine.from_model(model, mix.settings)
    answers: dict[int, list[int]] = {index: [] for index in range(len(mix.prompts))}
    numbers: dict[int, int] = {}
    cut: set[int] = set()
    step = 0
    while len(numbers) < len(mix.prompts) or engine.busy:
        for index, inputs in enumerate(mix.prompts):
            if mix.arrival[index] <= step and index not in numbers.values():
                options = SamplingOptions(max_new_tokens=mix.new_tokens[index])
                numbers[engine.add(inputs, options)] = index
        for number, index in numbers.items():
            if mix.aborted.get(index, -1) == step:
                engine.abort(number)
        for output in engine.step():
            answers[numbers[output.request_id]] += output.ids
            if output.finish == "abort":
                cut.add(numbers[output.request_id])
            assert output.finish in (None, "stop", "length", "abort"), output.error
        engine.check()
        step += 1
        assert step < 5000, "the engine stands still"
    return engine, answers, cut


def agree(model: Any, seed: int) -> int:
    """Play one mix and compare; gives how often a request was sent back to wait."""
    mix = random_mix(model, seed)
    engine, answers, cut = play(model, mix)
    for index, (inputs, new_tokens) in enumerate(zip(mix.prompts, mix.new_tokens, strict=True)):
        wanted = expected(model, inputs, new_tokens)
        if index in cut:
            wanted = wanted[: len(answers[index])]
        assert answers[index] == wanted, f"mix {seed}, prompt {index}: {answers[index]} is not {wanted}"
    load = engine.load()
    assert (load.pages_used, load.features_in_use, load.waiting, load.running) == (0, 0, 0, 0)
    return load.preemptions


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_a_random_mix_gives_the_ids_of_generate(model: Any, seed: int) -> None:
    agree(model, seed)


@pytest.mark.slow
def test_two_hundred_random_mixes_give_the_ids_of_generate(model: Any) -> None:
    preemptions = sum(agree(model, seed) for seed in range(100, 300))
    assert preemptions > 30, "too few preemptions for the mixes to mean much"


SWITCHES: dict[str, dict[str, Any]] = {
    "mistral with a window": {"family": "mistral", "text": {"sliding_window": 24}},
    "mistral without a window": {"family": "mistral", "text": {"sliding_window": None}},
    "qwen2 with biases": {"family": "qwen2"},
    "qwen2 with a window in the upper layer": {
        "family": "qwen2",
        "text": {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
    },
    "all heads with keys of their own": {"text": {"num_key_value_heads": 4}},
    "heads wider than the hidden size": {"text": {"head_dim": 32}},
    "attention and mlp biases": {"text": {"attention_bias": True, "mlp_bias": True}},
    "tied embeddings": {"text": {"tie_word_embeddings": True}},
    "linear rope": {
        "text": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}}
    },
    "llama3 rope": {
        "text": {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
                "rope_theta": 10000.0,
            }
        }
    },
    "yarn rope": {
        "text": {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 256,
                "rope_theta": 10000.0,
            }
        }
    },
    "dynamic rope inside its window": {
        "text": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}
    },
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_gives_the_ids_of_generate(name: str) -> None:
    model = tiny(**SWITCHES[name])
    engine = Engine.from_model(model, EngineSettings(dtype="float32", kv_bytes=1 << 22, token_budget=64))
    prompts = [
        prompt(words(1, 3), clip(1, 6), words(2, 9)),
        prompt(words(1, 3), clip(1, 6), words(3, 30)),
        prompt(words(4, 70)),
    ]
    for inputs, answer in zip(
        prompts, engine.generate(prompts, SamplingOptions(max_new_tokens=12)), strict=True
    ):
        assert list(answer.ids) == reference(model, inputs, 12)


TOWERS: dict[str, dict[str, Any]] = {
    "the last layer": {"vision_feature_layer": -1},
    "two layers side by side": {"vision_feature_layer": [1, -1]},
    "max pooling": {"spatial_pool_mode": "max"},
    "conv pooling": {"spatial_pool_mode": "conv"},
    "a SigLIP tower": {
        "vision": {"tower": "siglip", "hidden_act": "gelu_pytorch_tanh"},
        "vision_feature_select_strategy": "full",
        "vision_feature_layer": -1,
    },
    "gelu in the tower": {"vision": {"hidden_act": "gelu"}},
    "no bias in the projector": {"multimodal_projector_bias": False},
}


@pytest.mark.parametrize("name", TOWERS)
def test_every_tower_and_connector_gives_the_ids_of_generate(name: str) -> None:
    model = tiny(**TOWERS[name])
    engine = Engine.from_model(model, EngineSettings(dtype="float32", kv_bytes=1 << 22, frame_budget=4))
    prompts = [
        prompt(words(1, 3), clip(1, 6), words(2, 9)),
        prompt(words(4, 5), picture(2, Size(90, 40)), words(5, 4)),
    ]
    for inputs, answer in zip(
        prompts, engine.generate(prompts, SamplingOptions(max_new_tokens=12)), strict=True
    ):
        assert list(answer.ids) == reference(model, inputs, 12)
