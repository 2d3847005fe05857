"""The path of a GPU gives the same answers.

Without a GPU Triton interprets its kernels, and steps are computed again instead of replayed.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.engine.conftest import clip, picture, prompt, reference, tiny, words
from tests.engine.test_rope import ANSWER, SCALINGS, question, referred
from tests.engine.test_rope import ours as scaled_network

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.assembly import on_gpu
from llava_next_video.engine.build import build
from llava_next_video.engine.memory import kv_bytes_for
from llava_next_video.engine.settings import SUITED
from llava_next_video.engine.weights import LoadedWeights
from llava_next_video.inputs import ModelInputs
from llava_next_video.long_video import RopeScaling
from llava_next_video.size import Size

SMALL = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=8, ahead=True)


@pytest.fixture(autouse=True)
def _triton() -> None:
    pytest.importorskip("triton", reason="the kernels are written in Triton; install the dev extra")


def interpreted(model: Any, settings: EngineSettings) -> Engine:
    parts = build(model, LoadedWeights(consume=False), replace(settings, kv_dtype="auto"), None)
    engine = Engine(parts)
    parts = replace(parts, settings=settings)  # a CPU refuses 8-bit keys; their kernels can be interpreted
    engine.runner = on_gpu(parts, pages=engine.pages.count, record=lambda compute: compute)
    return engine


def questions() -> list[ModelInputs]:
    return [
        prompt(words(1, 3), clip(1, 6), words(2, 9)),
        prompt(words(1, 3), clip(1, 6), words(3, 30)),
        prompt(words(4, 70)),
        prompt(words(4, 5), picture(2, Size(90, 40)), words(5, 4)),
    ]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here, and are not interpreted")
def test_interpreted_kernels_give_the_ids_of_generate(model: Any) -> None:
    engine = interpreted(model, SMALL)
    answers = engine.generate(questions(), SamplingOptions(max_new_tokens=6))
    for inputs, answer in zip(questions(), answers, strict=True):
        assert list(answer.ids) == reference(model, inputs, 6)
    assert engine.runner.graphs is not None
    # Four requests generate together, and fewer when the first have ended: rows are filled up to 4, 2 or 1.
    assert {key.rows for key in engine.runner.graphs.recorded} <= {1, 2, 4}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here, and are not interpreted")
def test_interpreted_kernels_turn_each_request_as_its_positions_are_scaled() -> None:
    own = scaled_network()
    scalings = [None, RopeScaling(factor=4.0), RopeScaling(kind="yarn", factor=4.0)]
    prompts = [replace(prompt(words(1, 18)), rope=rope) for rope in scalings]
    engine = interpreted(own, SMALL)
    answers = engine.generate(prompts, replace(ANSWER, max_new_tokens=4))
    assert [list(one.ids) for one in answers] == [referred(own, one, one.rope)[:4] for one in prompts]
    assert [one.last.cached_tokens for one in answers] == [0] * len(prompts)
    assert engine.runner.graphs is not None
    assert engine.runner.graphs.recorded


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here, and are not interpreted")
def test_keys_in_eight_bits_change_logits_a_little(model: Any) -> None:
    options = SamplingOptions(max_new_tokens=1, logprobs=1)
    exact, narrow = interpreted(model, SMALL), interpreted(model, replace(SMALL, kv_dtype="fp8"))
    for inputs in questions()[1:3]:
        [wanted], [found] = (one.generate([inputs], options) for one in (exact, narrow))
        difference = abs(wanted.last.logprobs[0].logprob - found.last.logprobs[0].logprob)
        assert 0 < difference < 0.2


@pytest.mark.gpu
def test_keys_in_eight_bits_answer_nearly_like_the_reference(wide_model: Any) -> None:
    settings = replace(
        SUITED["cuda"], kv_bytes=1 << 26, max_requests=8, token_budget=64, kv_dtype="fp8", dtype="float32"
    )
    assert agreement(Engine.from_model(wide_model, settings), wide_model, 12) >= 0.8


def wide(**changes: Any) -> Any:
    """A model whose widths the tensor cores can take."""
    return tiny(
        text={"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, **changes},
        vision={"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128},
    )


@pytest.fixture(scope="module")
def wide_model() -> Any:
    return wide()


def agreement(engine: Engine, model: Any, new_tokens: int) -> float:
    """The share of tokens that a float32 reference on the CPU would choose after the same beginning."""
    agreed = total = 0
    answers = engine.generate(questions(), SamplingOptions(max_new_tokens=new_tokens, ignore_eos=True))
    for inputs, answer in zip(questions(), answers, strict=True):
        for length in range(len(answer.ids)):
            longer = ModelInputs(ids=inputs.ids + answer.ids[:length], media=inputs.media)
            wanted = reference(model, longer, 1, suppress_tokens=[2, 300, 301])
            agreed += wanted == [answer.ids[length]]
            total += 1
    return agreed / total


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False])
def test_a_gpu_in_16_bits_agrees_with_the_reference(wide_model: Any, graphs: bool) -> None:
    settings = replace(SUITED["cuda"], kv_bytes=1 << 26, max_requests=8, token_budget=64, graphs=graphs)
    # bfloat16 on a CPU agrees in 0.875: where two random logits are close, rounding decides.
    assert agreement(Engine.from_model(wide_model, settings), wide_model, 12) >= 0.8


@pytest.mark.gpu
@pytest.mark.parametrize("quantize", ["fp8", "int8", "int4"])
def test_narrow_weights_multiply_like_wide_ones(quantize: Any) -> None:
    from llava_next_video.engine.linear import linear

    dice = torch.Generator("cuda").manual_seed(0)
    weight = torch.randn(512, 256, generator=dice, device="cuda", dtype=torch.bfloat16)
    bias = torch.randn(512, generator=dice, device="cuda", dtype=torch.bfloat16)
    product = linear([weight], [bias], quantize)
    for rows in (1, 7, 100):
        x = torch.randn(rows, 256, generator=dice, device="cuda", dtype=torch.bfloat16)
        exact = x.double() @ weight.double().t() + bias.double()
        error = (product(x).double() - exact).norm() / exact.norm()
        # 127, 16 and 15 levels for each sign or range of a row or group: 0.3, 3 and 8 % of its largest value.
        assert error < {"int8": 0.02, "fp8": 0.06, "int4": 0.12}[quantize]


@pytest.mark.gpu
def test_a_whole_network_computes_in_few_bits(wide_model: Any) -> None:
    for quantize in ("fp8", "int8", "int4"):
        settings = replace(
            SUITED["cuda"], kv_bytes=1 << 26, max_requests=8, token_budget=64, quantize=quantize
        )
        [answer] = Engine.from_model(wide(), settings).generate(
            questions()[:1], SamplingOptions(max_new_tokens=4, ignore_eos=True)
        )
        assert len(answer.ids) == 4


@pytest.mark.gpu
def test_answers_do_not_change_with_who_runs_beside_them_on_a_gpu(wide_model: Any) -> None:
    settings = replace(SUITED["cuda"], kv_bytes=1 << 26, max_requests=8, token_budget=64, dtype="float32")
    wanted = [reference(wide_model, inputs, 8) for inputs in questions()]
    engine = Engine.from_model(wide_model, settings)
    options = SamplingOptions(max_new_tokens=8)
    assert [list(answer.ids) for answer in engine.generate(questions(), options)] == wanted
    engine.check()


@pytest.mark.gpu
def test_a_gpu_turns_each_request_as_its_positions_are_scaled() -> None:
    own = scaled_network(hidden_size=256, intermediate_size=384)
    prompts = [question(rope, frames=frames) for rope in SCALINGS for frames in (5, 12)]
    settings = replace(SUITED["cuda"], kv_bytes=1 << 26, max_requests=8, token_budget=64, dtype="float32")
    answers = Engine.from_model(own, settings).generate(prompts, ANSWER)
    assert [list(one.ids) for one in answers] == [referred(own, one, one.rope) for one in prompts]


@pytest.mark.gpu
def test_keys_and_values_take_what_weights_leave_or_all_that_requests_can_use() -> None:
    few = Engine.from_model(tiny(), SUITED["cuda"])
    assert few.pages.count == few.settings.max_requests * 1024 // few.settings.page_tokens
    free, _ = torch.cuda.mem_get_info()
    many = replace(SUITED["cuda"], max_requests=10**6, token_budget=10**6)
    assert 0.4 * free < kv_bytes_for(few.decoder, few.words, few.encoder.vision, many) < free


@pytest.mark.gpu
def test_a_seed_gives_the_draws_of_the_cpu(wide_model: Any) -> None:
    from llava_next_video.engine.request import Request
    from llava_next_video.engine.sampler import Sampler
    from llava_next_video.engine.sampler_batched import BatchedSampler

    def asked(seed: int) -> Request:
        return Request.of(
            ModelInputs(ids=(1, 5)),
            SamplingOptions(seed=seed, temperature=0.9, top_p=0.8),
            id=seed,
            index=0,
            end_ids=frozenset(),
            deadline_s=None,
            salt=hashlib.sha256(b"").digest(),
        )

    logits = torch.randn(50, 320, generator=torch.Generator().manual_seed(5)) * 3
    there = BatchedSampler(forbidden=[7], model_end_ids=frozenset(), device=torch.device("cuda"))
    here = Sampler(forbidden=[7], model_end_ids=frozenset())
    drawn = there.choose([asked(n) for n in range(50)], logits.cuda()).tolist()
    chosen = [one.id for one in here.choose([asked(n) for n in range(50)], logits.clone())]
    assert (
        sum(a == b for a, b in zip(drawn, chosen, strict=True)) >= 49
    )  # a draw on an edge may round over it
