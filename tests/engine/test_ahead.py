"""Steps that start before the tokens of the last one are known give the same answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.engine.conftest import END, VOCABULARY, clip, prompt, reference, words

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.request import Request
from llava_next_video.engine.sampler import Sampler
from llava_next_video.engine.sampler_batched import BatchedSampler
from llava_next_video.inputs import ModelInputs

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16, ahead=True)


def asked(seed: int, **options: Any) -> Request:
    return Request.of(
        ModelInputs(ids=(1, 5)),
        SamplingOptions(seed=seed, **options),
        id=seed,
        index=0,
        end_ids=frozenset({END}),
        deadline_s=None,
        salt=b"",
    )


def samplers() -> tuple[Sampler, BatchedSampler]:
    ends = frozenset({END})
    return (
        Sampler(forbidden=[7], model_end_ids=ends),
        BatchedSampler(forbidden=[7], model_end_ids=ends, device=torch.device("cpu")),
    )


OPTIONS: list[dict[str, Any]] = [
    {},
    {"ignore_eos": True},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.6},
    {"temperature": 0.9, "min_p": 0.2, "ignore_eos": True},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.8, "min_p": 0.05},
]


def test_all_rows_at_once_choose_what_each_chooses_alone() -> None:
    alone, batched = samplers()
    logits = torch.randn(70, VOCABULARY, generator=torch.Generator().manual_seed(3)) * 3
    logits[:, END] += 4
    requests, again = ([asked(n, **OPTIONS[n % len(OPTIONS)]) for n in range(70)] for _ in range(2))
    one_by_one = [chosen.id for chosen in alone.choose(requests, logits.clone())]
    assert batched.choose(again, logits.clone()).tolist() == one_by_one
    assert END in one_by_one
    assert 7 not in one_by_one


def test_draws_of_all_rows_at_once_follow_the_probabilities() -> None:
    alone, batched = samplers()
    options = {"temperature": 1.2, "top_k": 6, "top_p": 0.9}
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(4)) * 2
    logits[7] = -torch.inf
    count = 4000
    drawn = batched.choose([asked(n, **options) for n in range(count)], logits.repeat(count, 1))
    probabilities, ids = alone.probabilities(asked(0, **options), logits)
    for probability, id in zip(probabilities.tolist(), ids.tolist(), strict=True):
        share = float((drawn == id).float().mean())
        assert share == pytest.approx(probability, abs=4 * (0.25 / count) ** 0.5)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.9, "top_p": 0.9, "seed": 11}])
def test_answers_are_those_of_steps_that_wait(model: Any, options: dict[str, Any]) -> None:
    prompts = [
        prompt(words(1, 3), clip(1, 6), words(2, 9)),
        prompt(words(1, 3), clip(1, 6), words(3, 30)),
        *[prompt(words(seed, 5 + seed)) for seed in range(4, 9)],
    ]
    wishes = [SamplingOptions(max_new_tokens=5 + 7 * n, **options) for n in range(len(prompts))]
    answers = {}
    for ahead in (False, True):
        engine = Engine.from_model(model, replace(SETTINGS, ahead=ahead))
        answers[ahead] = engine.generate(prompts, wishes)
        engine.check()
    assert [one.ids for one in answers[True]] == [one.ids for one in answers[False]]
    for answer in answers[True]:
        assert answer.last.completion_tokens == len(answer.ids)


def test_an_output_comes_while_the_next_step_is_under_way(model: Any) -> None:
    engine = Engine.from_model(model, SETTINGS)
    engine.add(prompt(words(1, 9)), SamplingOptions(max_new_tokens=3, ignore_eos=True))
    assert [len(engine.step()) for _ in range(4)] == [0, 1, 1, 1]
    assert not engine.busy


def test_a_request_that_needs_its_last_token_makes_the_steps_wait(model: Any) -> None:
    engine = Engine.from_model(model, SETTINGS)
    plain = prompt(words(1, 9))
    first = engine.add(plain, SamplingOptions(max_new_tokens=12))
    ids = [id for _ in range(3) for output in engine.step() for id in output.ids]
    told = SamplingOptions(max_new_tokens=4, logprobs=2, repetition_penalty=1.2, ignore_eos=True)
    second = engine.add(prompt(words(2, 9)), told)
    logprobs = 0
    while engine.busy:
        for output in engine.step():
            ids += output.ids if output.request_id == first else ()
            logprobs += len(output.logprobs) if output.request_id == second else 0
    assert ids == reference(model, plain, 12)
    assert logprobs == 4


def test_a_token_that_nobody_waits_for_any_more_is_dropped(model: Any) -> None:
    engine = Engine.from_model(model, SETTINGS)
    number = engine.add(prompt(words(1, 9)), SamplingOptions(max_new_tokens=50, ignore_eos=True))
    outputs = [output for _ in range(4) for output in engine.step()]
    engine.abort(number)
    [last] = engine.step()
    assert last.finish == "abort"
    assert last.completion_tokens == len(outputs) == 3
    assert engine.step() == []
    assert not engine.busy
    engine.check()
