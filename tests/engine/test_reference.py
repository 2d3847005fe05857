"""The engine against our own reference network, in what transformers' class cannot do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.engine.conftest import IMAGE, VIDEO, clip, medium, picture, prompt, reference, tiny, words

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.inputs import padded_batch
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.size import Size

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16)


def ours(**settings: Any) -> Any:
    """Our network with the weights of the tiny one of transformers."""
    theirs = tiny()
    config = LlavaNextVideoConfig(**{**theirs.config.to_dict(), **settings})
    model = LlavaNextVideoForConditionalGeneration(config).eval()
    model.load_state_dict(theirs.state_dict(), strict=False)
    model.generation_config = theirs.generation_config
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"video_newline": "one_token"},
        {"video_newline": "frame"},
        {"video_newline": "grid", "spatial_pool_mode": "bilinear", "pool_before_projector": False},
        {"spatial_pool_stride": 3, "spatial_pool_mode": "bilinear"},
    ],
)
def test_every_layout_of_a_clip_gives_the_ids_of_the_reference(settings: dict[str, Any]) -> None:
    model = ours(**settings)
    tokens = model.config.video_layout(6).tokens
    one = medium("video", 0, tokens, None, clip(1, 6).load())
    inputs = prompt(words(1, 3), one, words(2, 9))
    with torch.inference_mode():
        batch = padded_batch([inputs], pad_token_id=0)
        ids = model.generate(**batch, max_new_tokens=10, do_sample=False, suppress_tokens=[IMAGE, VIDEO])
    wanted = [id for id in ids[0, len(inputs.ids) :].tolist() if id != 2]
    answer = Engine.from_model(model, SETTINGS).generate([inputs], SamplingOptions(max_new_tokens=10))[0]
    assert list(answer.ids) == wanted


def test_a_picture_beyond_the_tile_limit_gives_the_ids_of_the_reference() -> None:
    model, size = ours(image_tile_limit=1), Size(100, 100)
    tokens = model.config.image_layout(size).tokens
    assert tokens == 16 + 4 * (4 + 1)  # 8 x 8 patches shrink to 4 x 4
    whole = picture(2, size)
    inputs = prompt(words(1, 3), medium("image", 0, tokens, size, whole.load()), words(2, 9))
    with torch.inference_mode():
        batch = padded_batch([inputs], pad_token_id=0)
        ids = model.generate(**batch, max_new_tokens=10, do_sample=False, suppress_tokens=[IMAGE, VIDEO])
    wanted = [id for id in ids[0, len(inputs.ids) :].tolist() if id != 2]
    answer = Engine.from_model(model, SETTINGS).generate([inputs], SamplingOptions(max_new_tokens=10))[0]
    assert list(answer.ids) == wanted


def test_our_network_and_that_of_transformers_make_the_same_engine(model: Any) -> None:
    inputs = prompt(words(1, 3), clip(1, 5), words(2, 4), picture(2, Size(80, 50)), words(3, 3))
    answer = Engine.from_model(ours(), SETTINGS).generate([inputs], SamplingOptions(max_new_tokens=10))[0]
    assert list(answer.ids) == reference(model, inputs, 10)


@pytest.mark.parametrize(("dtype", "apart"), [("bfloat16", 0.3), ("float16", 0.05)])
def test_half_precision_moves_the_logits_only_a_little(dtype: Any, apart: float) -> None:
    model = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.4)
    prompts = [prompt(words(1, 4), clip(1, 30), words(seed, 8)) for seed in range(3)]
    tops = []
    for precision in ("float32", dtype):
        settings = EngineSettings(dtype=precision, kv_bytes=1 << 20, token_budget=64)
        options = SamplingOptions(max_new_tokens=2, logprobs=100, ignore_eos=True)
        answers = Engine.from_model(model, settings).generate(prompts, options)
        tops.append([dict(answer.last.logprobs[0].top) for answer in answers])
    for exact, rounded in zip(*tops, strict=True):
        both = exact.keys() & rounded.keys()
        assert len(both) > 60
        assert sum(abs(exact[id] - rounded[id]) for id in both) / len(both) < apart
