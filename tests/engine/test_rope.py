"""Positions scaled by request: engine as reference, reference as transformers, pages never mixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.engine.conftest import IMAGE, VIDEO, clip, prompt, tiny, words
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.errors import CapacityError, ConfigError
from llava_next_video.inputs import ModelInputs, padded_batch
from llava_next_video.long_video import RopeScaling, read_rope
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.model.rope import rope_scaled, scaled_rotary

TRAINED = 128
SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 21, token_budget=96, max_requests=16)
SCALINGS = [
    None,
    RopeScaling(factor=1.5),
    RopeScaling(factor=2.0),
    RopeScaling(factor=2.3),
    RopeScaling(factor=3.5),
    RopeScaling(factor=4.0),
    RopeScaling(kind="dynamic", factor=1.5),
    RopeScaling(kind="dynamic", factor=2.0),
    RopeScaling(kind="dynamic", factor=3.5),
    RopeScaling(kind="dynamic", factor=4.0),
    RopeScaling(kind="yarn", factor=1.5),
    RopeScaling(kind="yarn", factor=2.0),
    RopeScaling(kind="yarn", factor=3.5),
    RopeScaling(kind="yarn", factor=4.0),
]
ANSWER = SamplingOptions(max_new_tokens=12, ignore_eos=True)


def ours(family: str = "llama", **text: Any) -> Any:
    """Our network with the weights of the tiny one of transformers, trained on 128 positions."""
    theirs = tiny(family, text={"max_position_embeddings": TRAINED, **text})
    model = LlavaNextVideoForConditionalGeneration(LlavaNextVideoConfig(**theirs.config.to_dict())).eval()
    model.load_state_dict(theirs.state_dict(), strict=False)
    model.generation_config = theirs.generation_config
    return model


@pytest.fixture(scope="module")
def network() -> Any:
    return ours()


def referred(model: Any, inputs: ModelInputs, rope: RopeScaling | None) -> list[int]:
    """What the reference network answers under a scaling."""
    never = [IMAGE, VIDEO, 2]
    with torch.inference_mode(), rope_scaled(model, rope):
        ids = model.generate(
            **padded_batch([inputs], pad_token_id=0),
            max_new_tokens=ANSWER.max_new_tokens,
            do_sample=False,
            suppress_tokens=never,
        )
    return list(ids[0, len(inputs.ids) :].tolist())


def question(rope: RopeScaling | None, *, frames: int = 12, last: int = 3) -> ModelInputs:
    """A clip of 4 tokens a frame between words."""
    return replace(prompt(words(1, 20), clip(1, frames), words(last, 24)), rope=rope)


@pytest.mark.parametrize("family", ["llama", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_requests_of_all_scalings_in_one_batch_get_the_ids_of_the_reference(family: str) -> None:
    model = ours(family)
    prompts = [question(rope, last=last) for rope in SCALINGS for last in (3, 4)]
    answers = Engine.from_model(model, SETTINGS).generate(prompts, ANSWER)
    wanted = [referred(model, inputs, inputs.rope) for inputs in prompts]
    assert [list(answer.ids) for answer in answers] == wanted
    assert len({tuple(ids) for ids in wanted}) > len(prompts) // 2  # the scalings do matter


def test_a_prompt_beyond_the_trained_positions_is_answered_as_by_the_reference(network: Any) -> None:
    prompts = [question(rope, frames=70) for rope in SCALINGS if rope and (rope.factor or 0) >= 3]
    assert len(prompts[0].ids) == 20 + 280 + 24
    answers = Engine.from_model(network, SETTINGS).generate(prompts, ANSWER)
    assert [list(one.ids) for one in answers] == [referred(network, one, one.rope) for one in prompts]


@pytest.mark.parametrize(
    ("rope", "config"),
    [
        (RopeScaling(factor=2.5), {"rope_type": "linear", "factor": 2.5}),
        (
            RopeScaling(kind="yarn", factor=4.0),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": TRAINED},
        ),
    ],
)
def test_the_reference_under_a_scaling_is_transformers_configured_so(
    network: Any, rope: RopeScaling, config: dict[str, Any]
) -> None:
    inputs = question(None)
    theirs = tiny(text={"max_position_embeddings": TRAINED * 4, "rope_parameters": config})
    batch = padded_batch([inputs], pad_token_id=0)
    batch["pixel_values_videos"] = torch.stack(list(batch["pixel_values_videos"]))
    with torch.inference_mode():
        before = network(**batch).logits
        with rope_scaled(network, rope):
            scaled = network(**batch).logits
        torch.testing.assert_close(scaled, theirs(**batch).logits, atol=1e-3, rtol=1e-4)
        assert (network(**batch).logits == before).all()
    assert not torch.allclose(scaled, before, atol=0.1)


def test_dynamic_turns_as_transformers_does_at_the_longest_prompt_that_fits(network: Any) -> None:
    language_model = network.model.language_model
    text = tiny(text={"max_position_embeddings": TRAINED}).config.text_config
    text.rope_parameters = {"rope_type": "dynamic", "factor": 1.0, "rope_theta": 10000.0}
    theirs, strength = ROPE_INIT_FUNCTIONS["dynamic"](text, seq_len=3 * TRAINED)
    own = scaled_rotary(
        type(language_model.rotary_emb), network.config.text_config, RopeScaling(kind="dynamic", factor=3.0)
    )
    torch.testing.assert_close(own.inv_freq, theirs)
    assert own.attention_scaling == strength


def test_pages_are_shared_within_a_scaling_and_never_across(network: Any) -> None:
    engine, short = Engine.from_model(network, SETTINGS), replace(ANSWER, max_new_tokens=2)
    cached = []
    for _ in range(2):
        cached.append([engine.generate([question(rope)], short)[0].last.cached_tokens for rope in SCALINGS])
    # 92 tokens of prompt: 5 whole pages of 16
    assert cached == [[0] * len(SCALINGS), [80] * len(SCALINGS)]
    together = Engine.from_model(network, SETTINGS)
    answers = together.generate([question(rope) for rope in SCALINGS], short)
    assert [answer.last.cached_tokens for answer in answers] == [0] * len(SCALINGS)
    assert together.encoder.frames == 12  # what the tower saw is the same for all


def test_a_factor_of_one_is_the_checkpoints_own_and_shares_its_pages(network: Any) -> None:
    engine = Engine.from_model(network, SETTINGS)
    engine.generate([question(None)], ANSWER)
    answer = engine.generate([question(RopeScaling(factor=1.0))], ANSWER)[0]
    assert answer.last.cached_tokens == 80


def test_more_scalings_than_may_run_together_take_turns(network: Any) -> None:
    engine = Engine.from_model(network, replace(SETTINGS, max_requests=2))
    prompts = [question(RopeScaling(factor=1 + step / 4)) for step in (1, 2, 3, 4, 1, 5, 2)]
    answers = engine.generate(prompts, ANSWER)
    assert [list(one.ids) for one in answers] == [referred(network, one, one.rope) for one in prompts]


@pytest.mark.parametrize(
    ("frames", "factor"),
    [(18, 1.0), (19, 1.5), (34, 1.5), (35, 2.0), (50, 2.0), (51, 2.5)],  # 56 tokens beside 4 a frame, of 128
)
def test_the_automatic_rule_is_yarn_with_the_least_half_that_fits(
    network: Any, frames: int, factor: float
) -> None:
    inputs = question(RopeScaling(kind="auto"), frames=frames)
    answer = Engine.from_model(network, SETTINGS).generate([inputs], ANSWER)[0]
    chosen = None if factor == 1 else RopeScaling(kind="yarn", factor=factor)
    assert list(answer.ids) == referred(network, inputs, chosen)
    asked = question(RopeScaling(kind="linear"), frames=frames)  # without a factor: the least that fits
    linear = Engine.from_model(network, SETTINGS).generate([asked], ANSWER)[0]
    assert list(linear.ids) == referred(network, inputs, RopeScaling(factor=factor))


def test_the_automatic_rule_is_the_checkpoints_own_scaling_and_beyond_it_its_kind() -> None:
    model = ours(rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0})
    engine = Engine.from_model(model, SETTINGS)
    short, long = (question(RopeScaling(kind="auto"), frames=frames) for frames in (12, 80))
    answers = engine.generate([short, long], ANSWER)
    assert list(answers[0].ids) == referred(model, short, None)
    assert list(answers[1].ids) == referred(model, long, RopeScaling(factor=3.0))  # 376 of 128 tokens


def test_a_linear_scaling_of_the_checkpoint_gives_way_to_another_kind_with_a_factor(network: Any) -> None:
    model = ours(rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0})
    inputs = question(RopeScaling(kind="yarn", factor=2.0))
    answer = Engine.from_model(model, SETTINGS).generate([inputs], ANSWER)[0]
    assert list(answer.ids) == referred(network, inputs, inputs.rope)  # as if it had never been scaled


def test_what_does_not_fit_even_so_is_refused_with_the_way_out(network: Any) -> None:
    engine = Engine.from_model(network, SETTINGS)
    with pytest.raises(
        CapacityError, match=r"336 tokens needed .*, 256 fit the context; .* larger rope factor"
    ):
        engine.add(question(RopeScaling(factor=2.0), frames=70), ANSWER)
    capped = Engine.from_model(network, replace(SETTINGS, context=100))
    with pytest.raises(CapacityError, match=r"104 tokens needed .*, 100 fit the context"):
        capped.add(question(RopeScaling(factor=2.0)), ANSWER)


def test_a_checkpoint_scaled_otherwise_keeps_its_scaling() -> None:
    scaled = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    model = ours(rope_parameters=scaled)
    engine = Engine.from_model(model, SETTINGS)
    fits = question(RopeScaling(kind="auto"), frames=6)  # 68 and 12 tokens of 128
    assert list(engine.generate([fits], ANSWER)[0].ids) == referred(model, fits, None)
    with pytest.raises(ConfigError, match="scaled by yarn already"):
        engine.add(question(RopeScaling(factor=2.0)), ANSWER)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (0.5, "rope factor 0.5 is below 1"),
        (float("nan"), "rope factor nan is below 1, or no number"),
        ("most", "rope is 'most'; expected a factor"),
        (True, "rope is True; expected a factor"),
    ],
)
def test_what_is_no_scaling_is_refused(wish: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_rope(wish)
