"""Nothing is computed twice, and nobody waits too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.engine.conftest import clip, prompt, reference, tiny, words
from torch import Tensor

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.attention_cpu import CpuAttention
from llava_next_video.engine.features import FeatureCache
from llava_next_video.engine.native import Kernels
from llava_next_video.engine.scheduler import Chunk, shares

SMALL = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16)


def test_questions_about_one_new_clip_encode_and_compute_it_once(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    prompts = [prompt(words(1, 4), clip(1, 12), words(seed, 6)) for seed in range(6)]
    answers = engine.generate(prompts, SamplingOptions(max_new_tokens=8))
    assert engine.encoder.frames == 12
    # 4 + 48 + 6 tokens: three whole pages of 16 hold only what all six have in common
    assert [answer.last.cached_tokens for answer in answers] == [0] + [48] * 5
    for inputs, answer in zip(prompts, answers, strict=True):
        assert list(answer.ids) == reference(model, inputs, 8)


@pytest.mark.slow
def test_a_clip_behind_different_words_is_encoded_once(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    engine.generate([prompt(words(s, 4), clip(1, 5), words(s, 3)) for s in range(4)])
    assert engine.encoder.frames == 5


def test_salt_keeps_tenants_apart(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    inputs = prompt(words(1, 40))
    for salt, cached in ((b"a", 0), (b"b", 0), (b"a", 32)):
        number = engine.add(inputs, SamplingOptions(max_new_tokens=2, ignore_eos=True), salt=salt)
        outputs = [output for _ in range(10) for output in engine.step()]
        assert outputs[-1].request_id == number
        assert outputs[-1].cached_tokens == cached


def test_when_the_leader_is_aborted_a_follower_takes_over(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    prompts = [prompt(clip(1, 40), words(seed, 6)) for seed in range(2)]
    leader = engine.add(prompts[0], SamplingOptions(max_new_tokens=8))
    follower = engine.add(prompts[1], SamplingOptions(max_new_tokens=8))
    for _ in range(6):
        engine.step()
    engine.abort(leader)
    ids = []
    while engine.busy:
        ids += [id for output in engine.step() if output.request_id == follower for id in output.ids]
    assert ids == reference(model, prompts[1], 8)


def test_shared_pages_attended_as_a_group_give_the_same_logits(model: Any) -> None:
    prompts = [prompt(words(1, 4), clip(1, 40), words(seed, 6)) for seed in range(5)]
    options = SamplingOptions(max_new_tokens=6, logprobs=5, ignore_eos=True)
    found = []
    for share in (True, False):
        settings = EngineSettings(dtype="float32", kv_bytes=1 << 21, token_budget=512, share_prefixes=share)
        engine = Engine.from_model(model, settings)
        number = {engine.add(inputs, options): index for index, inputs in enumerate(prompts)}
        rows: dict[int, list[float]] = {index: [] for index in range(5)}
        while engine.busy:
            for output in engine.step():
                for one in output.logprobs:
                    rows[number[output.request_id]] += [value for _, value in one.top]
        found.append(torch.tensor([rows[index] for index in range(5)]))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-4)


def test_questions_that_generate_read_what_they_share_once(model: Any, kernels: Kernels) -> None:
    """Six questions about a clip of 400 tokens in every step. The first one has words of its own right behind
    the clip, so that its second piece of 256 slots ends elsewhere and is read beside that of the others."""
    settings = EngineSettings(dtype="bfloat16", kv_bytes=1 << 21, token_budget=512, native=True)
    engine = Engine.from_model(model, settings)
    attention = engine.runner.attention
    assert isinstance(attention, CpuAttention)
    read: list[tuple[int, int]] = []
    places = attention.places

    def counted(chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor]:
        slots, looks = places(chunks)
        read.append((int((looks[:, 2] - looks[:, 1]).sum()), kernels.slots_read(looks)))
        return slots, looks

    attention.places = counted  # type: ignore[method-assign]
    prompts = [prompt(clip(1, 100), words(seed, 6)) for seed in range(6)]
    engine.generate(prompts, SamplingOptions(max_new_tokens=12, ignore_eos=True))
    together = [once for seen, once in read if seen > 6 * 400]
    assert len(together) > 8
    assert max(together) <= 400 + (400 - 256) + 6 * (6 + 12)


def test_a_long_clip_never_stops_those_who_generate(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    stream = engine.add(prompt(words(1, 4)), SamplingOptions(max_new_tokens=60, ignore_eos=True))
    for _ in range(3):
        engine.step()
    engine.add(prompt(clip(1, 64), words(2, 4)), SamplingOptions(max_new_tokens=2))
    for _ in range(20):
        assert stream in {output.request_id for output in engine.step()}


def test_the_first_of_many_clips_is_answered_before_the_last_is_encoded(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    first = engine.add(prompt(clip(0, 24), words(1, 4)), SamplingOptions(max_new_tokens=1, ignore_eos=True))
    for seed in range(1, 8):
        engine.add(prompt(clip(seed, 24), words(1, 4)), SamplingOptions(max_new_tokens=1))
    while first not in {output.request_id for output in engine.step()}:
        pass
    assert engine.encoder.frames < 3 * 24


def test_prompts_that_fill_every_step_do_not_keep_media_from_being_encoded(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    number = engine.add(prompt(clip(0, 16), words(1, 4)), SamplingOptions(max_new_tokens=1, ignore_eos=True))
    done = False
    for step in range(12):
        engine.add(prompt(words(100 + step, 100)), SamplingOptions(max_new_tokens=1))
        done = done or number in {output.request_id for output in engine.step()}
    assert done


def test_short_requests_do_not_starve_a_long_one(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    long = engine.add(prompt(words(1, 800)), SamplingOptions(max_new_tokens=1, ignore_eos=True))
    done = False
    for step in range(26):  # half of a budget of 64 a step is his: 800 / 32 = 25 steps
        for seed in range(3):
            engine.add(prompt(words(1000 + 3 * step + seed, 20)), SamplingOptions(max_new_tokens=1))
        done = done or any(output.request_id == long for output in engine.step())
    assert done


def test_a_short_request_overtakes_the_rest_of_a_long_prompt(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    engine.add(prompt(words(1, 800)), SamplingOptions(max_new_tokens=1))
    engine.step()
    short = engine.add(prompt(words(2, 10)), SamplingOptions(max_new_tokens=1, ignore_eos=True))
    assert short in {output.request_id for output in engine.step()}


@pytest.mark.parametrize("wants", [[], [5], [5, 5], [1000, 3, 900, 2], [0, 10]])
def test_shares_spend_the_whole_budget_if_it_is_wanted(wants: list[int]) -> None:
    given = shares(64, wants)
    assert sum(given) == min(64, sum(wants))
    assert all(0 <= got <= want for got, want in zip(given, wants, strict=True))


def test_features_that_nobody_needs_stay_within_their_bytes() -> None:
    cache = FeatureCache(limit_bytes=100)
    for number in range(5):
        key = bytes([number])
        cache.put(key, torch.zeros(5, 2))  # 40 bytes
        cache.use(key, (number, 0))
    assert cache.in_use == 5
    for number in range(5):
        cache.drop(bytes([number]), (number, 0))
    assert (cache.in_use, cache.idle_bytes) == (0, 80)
    assert b"\x04" in cache
    assert b"\x00" not in cache


def test_memory_of_pages_is_reused_over_many_requests(model: Any) -> None:
    engine = Engine.from_model(model, SMALL)
    for seed in range(12):
        engine.generate([prompt(words(seed, 50))], SamplingOptions(max_new_tokens=3))
        engine.check()
    load = engine.load()
    assert load.pages_used == 0
    assert load.pages_cached <= load.pages


def test_eight_bits_move_the_logits_only_a_little(model: Any) -> None:
    """Log probabilities of the likeliest tokens after one step."""
    quiet = tiny()
    with torch.no_grad():
        for parameter in quiet.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.4)
    inputs = prompt(words(1, 4), clip(1, 8), words(2, 8))
    options = SamplingOptions(max_new_tokens=1, logprobs=20, ignore_eos=True)
    tops = []
    for quantize in ("none", "int8"):
        settings = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, quantize=quantize)
        output = Engine.from_model(quiet, settings).generate([inputs], options)[0].last
        tops.append(dict(output.logprobs[0].top))
    both = tops[0].keys() & tops[1].keys()
    assert len(both) >= 14
    assert sum(abs(tops[0][id] - tops[1][id]) for id in both) / len(both) < 0.15
