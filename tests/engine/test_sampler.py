"""Choosing tokens: like transformers' processors, repeatable, and never a placeholder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.engine.conftest import IMAGE, VIDEO, clip, prompt, reference, words
from torch import Tensor
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.request import Request
from llava_next_video.engine.sampler import Sampler
from llava_next_video.inputs import ModelInputs

SMALL = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16)


def request(ids: tuple[int, ...] = (1, 2), answer: tuple[int, ...] = (), **options: Any) -> Request:
    one = Request.of(
        ModelInputs(ids=ids),
        SamplingOptions(**options),
        id=0,
        index=0,
        end_ids=frozenset({2}),
        deadline_s=None,
        salt=b"",
    )
    one.ids += answer
    return one


def sampler() -> Sampler:
    return Sampler(forbidden=[7], model_end_ids=frozenset({2}))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.6},
        {"temperature": 0.9, "min_p": 0.2},
        {"temperature": 0.8, "top_k": 12, "top_p": 0.8, "min_p": 0.05},
        {"temperature": 1.0, "top_p": 0.01},
    ],
)
def test_the_probabilities_are_those_of_transformers(options: dict[str, float]) -> None:
    logits = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 2
    probabilities, ids = sampler().probabilities(request(**options), logits)
    scores = logits[None]
    warpers = {"temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper}
    for name, warper in {**warpers, "min_p": MinPLogitsWarper}.items():
        if name in options:
            scores = warper(options[name])(torch.ones(1, 1, dtype=torch.long), scores)
    torch.testing.assert_close(torch.zeros(40).scatter(0, ids, probabilities), scores.softmax(-1)[0])


def test_drawn_tokens_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.15, 0.1]))
    one = request(temperature=1.0, seed=3)
    choose = Sampler(forbidden=[], model_end_ids=frozenset())
    counts = torch.zeros(4)
    for _ in range(1500):
        counts[choose.choose([one], logits[None].clone())[0].id] += 1
    torch.testing.assert_close(counts / 1500, logits.exp(), atol=0.04, rtol=0)


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(2))
    ids = (3, 4, 4, 5)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([[*ids, 6]]), logits.clone())
    expected[0, 7] = -torch.inf
    adjusted = logits.clone()
    chosen = sampler().choose([request(ids, (6,), repetition_penalty=1.7)], adjusted)
    torch.testing.assert_close(adjusted, expected)
    assert chosen[0].id == int(expected.argmax())


def test_presence_and_frequency_count_only_the_answer() -> None:
    logits = torch.zeros(1, 10)
    one = request((3, 3), (4, 4, 5), presence_penalty=1.0, frequency_penalty=0.5)
    sampler().choose([one], logits)
    assert logits[0, 3:6].tolist() == [0.0, -2.0, -1.5]


def test_a_bias_and_a_guide_change_what_is_chosen() -> None:
    logits = torch.zeros(1, 10)
    logits[0, 1] = 5
    assert sampler().choose([request(logit_bias={8: 6.0})], logits.clone())[0].id == 8

    def guide(answer: Any) -> Tensor:
        allowed = torch.zeros(10, dtype=torch.bool)
        allowed[3 + len(answer)] = True
        return allowed

    assert sampler().choose([request(guide=guide)], logits.clone())[0].id == 3
    assert sampler().choose([request(answer=(3,), guide=guide)], logits.clone())[0].id == 4


def test_a_forbidden_token_is_never_chosen_even_with_a_bias() -> None:
    logits = torch.zeros(1, 10)
    logits[0, 7] = 100
    assert sampler().choose([request(logit_bias={7: 100.0})], logits.clone())[0].id != 7


def test_logprobs_are_those_of_the_model() -> None:
    logits = torch.randn(1, 10, generator=torch.Generator().manual_seed(5))
    bare = logits.clone()
    bare[0, 7] = -torch.inf
    expected = bare.log_softmax(-1)[0]
    one = sampler().choose([request(logprobs=3, logit_bias={4: 50.0})], logits)[0]
    assert one.id == 4
    assert one.logprob is not None
    assert one.logprob.logprob == pytest.approx(float(expected[4]))
    assert [id for id, _ in one.logprob.top] == expected.topk(3).indices.tolist()


def test_a_seed_repeats_an_answer_whatever_runs_beside_it(model: Any) -> None:
    options = SamplingOptions(max_new_tokens=10, temperature=1.0, seed=11, ignore_eos=True)
    inputs = prompt(words(1, 4), clip(1, 3), words(2, 4))
    alone = Engine.from_model(model, SMALL).generate([inputs], options)[0].ids
    others = [prompt(words(seed, 9)) for seed in range(5)]
    together = Engine.from_model(model, SMALL).generate([*others, inputs], options)[-1].ids
    assert together == alone
    other_seed = SamplingOptions(max_new_tokens=10, temperature=1.0, seed=12, ignore_eos=True)
    assert Engine.from_model(model, SMALL).generate([inputs], other_seed)[0].ids != alone


def test_n_answers_share_the_prompt_and_differ(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    inputs = prompt(words(1, 4), clip(1, 9), words(2, 4))
    options = SamplingOptions(max_new_tokens=10, temperature=1.0, seed=5, n=3, ignore_eos=True)
    answers = engine.generate([inputs], options)
    assert [answer.last.index for answer in answers] == [0, 1, 2]
    assert len({answer.ids for answer in answers}) == 3
    alone = SamplingOptions(max_new_tokens=10, temperature=1.0, seed=6, ignore_eos=True)
    assert engine.generate([inputs], alone)[0].ids == answers[1].ids
    assert [answer.last.cached_tokens for answer in answers] == [0, 32, 32]  # 44 tokens: two whole pages


def test_placeholders_and_ids_beyond_the_tokenizer_are_never_chosen(model: Any) -> None:
    engine = Engine.from_model(model, SMALL, tokens=100)
    options = SamplingOptions(max_new_tokens=60, temperature=50.0, seed=1, ignore_eos=True)
    ids = engine.generate([prompt(words(1, 3))], options)[0].ids
    assert max(ids) < 100
    assert not {IMAGE, VIDEO} & set(ids)


def test_a_repetition_penalty_gives_the_ids_of_generate(model: Any) -> None:
    inputs = prompt(words(1, 4), words(2, 4))
    engine = Engine.from_model(model, SMALL)
    ids = engine.generate([inputs], SamplingOptions(max_new_tokens=12, repetition_penalty=1.5))[0].ids
    assert list(ids) == reference(model, inputs, 12, repetition_penalty=1.5)
