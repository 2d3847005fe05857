"""Kernels in C++ against torch, and engines that use them against engines that do without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.engine.conftest import clip, prompt, tiny, words
from torch import Tensor

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.linear import MOSTLY_POSITIVE, Int8Linear, PackedLinear, linear
from llava_next_video.engine.native import Behind, Kernels, Kind, NativeLinear, Norm, Panels, looks
from llava_next_video.engine.native.library import found_kernels
from llava_next_video.engine.settings import Quantize
from llava_next_video.errors import ConfigError


def exact_attention(queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """In float64, from the definition: tokens x heads x width, and the logs of the sums."""
    rows, heads, width = queries.shape
    each = heads // len(keys)
    keys, values = (side.double().repeat_interleave(each, 0) for side in (keys, values))
    scores = queries.double().transpose(0, 1) @ keys.transpose(1, 2) * width**-0.5
    if causal:
        count = keys.shape[1]
        seen = torch.arange(count)[None] <= torch.arange(rows)[:, None] + count - rows
        scores = scores.masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(0, 1), scores.logsumexp(-1).T


@pytest.mark.parametrize(
    ("rows", "keys", "key_heads", "group", "width", "causal"),
    [
        (1, 1, 1, 1, 16, True),
        (7, 33, 2, 2, 72, False),
        (64, 64, 1, 3, 64, True),
        (20, 150, 2, 1, 8, True),
        (450, 451, 1, 1, 128, True),
        (5, 200, 2, 7, 30, False),
    ],
)
@pytest.mark.parametrize("kinds", ["bf16 bf16", "float bf16", "float float"])
def test_attention_is_that_of_its_definition(
    kernels: Kernels, kinds: str, rows: int, keys: int, key_heads: int, group: int, width: int, causal: bool
) -> None:
    torch.manual_seed(rows)
    query_kind, key_kind = ({"bf16": torch.bfloat16, "float": torch.float32}[name] for name in kinds.split())
    both = torch.randn(rows, 2 * key_heads * group, width).to(query_kind)
    queries = both[:, : key_heads * group]  # as in a fused product: rows of more heads than are asked
    sides = torch.randn(2, key_heads, keys + 3, width).to(key_kind)[:, :, 2 : 2 + keys]
    found, sums = kernels.attend(queries, sides[0], sides[1], causal=causal)
    exact, exact_sums = exact_attention(queries, sides[0], sides[1], causal)
    assert found.dtype is query_kind
    assert (found - exact).abs().max() < 0.03
    assert (found - exact).norm() / exact.norm() < 0.01
    assert sums is not None
    assert (sums - exact_sums).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [8, 64, 72, 128])
def test_single_tokens_attend_each_to_their_own_slots(
    kernels: Kernels, dtype: torch.dtype, width: int
) -> None:
    torch.manual_seed(width)
    store, queries = torch.randn(2, 2, 1500, width).bfloat16(), torch.randn(4, 6, width).to(dtype)
    alone = [(3, 0, 1500), (0, 17, 18), (2, 700, 1111)]
    found = kernels.attend_alone(queries, store, looks(alone), 3)
    for one, (row, begin, end) in zip(found, alone, strict=True):
        exact, _ = exact_attention(queries[row][None], store[0, :, begin:end], store[1, :, begin:end], False)
        assert (one - exact[0]).norm() / exact.norm() < 0.01


@pytest.mark.parametrize("group", [1, 3, 4])
@pytest.mark.parametrize("company", [2, 5, 13])
def test_what_tokens_look_at_together_is_read_once_and_moves_no_bit(
    kernels: Kernels, group: int, company: int
) -> None:
    """A common beginning of two pieces and a half, then slots of their own."""
    torch.manual_seed(company)
    store = torch.randn(2, 2, 640 + 40 * company, 72).bfloat16()
    queries = torch.randn(company, 2 * group, 72)
    seen = [[(0, 640), (640 + 40 * row, 660 + 41 * row % 19 + 40 * row)] for row in range(company)]
    beside = looks([(row, *one) for row, some in enumerate(seen) for one in some])
    found = kernels.attend_alone(queries, store, beside, company)
    for row, some in enumerate(seen):
        alone = looks([(row, *one) for one in some])
        assert torch.equal(found[row], kernels.attend_alone(queries, store, alone, 1)[0])
        keys, values = (torch.cat([side[:, begin:end] for begin, end in some], 1) for side in store)
        exact, _ = exact_attention(queries[row][None], keys, values, False)
        assert (found[row] - exact[0]).norm() / exact.norm() < 0.01
    own = sum(end - begin for _, (begin, end) in seen)
    assert kernels.slots_read(beside) == 640 + own


def test_what_kernels_give_does_not_hang_on_the_number_of_threads(kernels: Kernels) -> None:
    torch.manual_seed(0)
    queries, store = torch.randn(300, 4, 64), torch.randn(2, 2, 2000, 64).bfloat16()
    x, product = torch.randn(3, 640), linear([torch.randn(640, 640)], [None], "int8", kernels=kernels)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        attended, _ = kernels.attend(queries, store[0], store[1], causal=True)
        found.append((attended, kernels.attend_alone(queries, store, looks([(7, 0, 2000)]), 1), product(x)))
    torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("zero_point", [128, MOSTLY_POSITIVE])
@pytest.mark.parametrize("width", [16, 50])
def test_rounding_is_never_more_than_half_a_step_off(
    kernels: Kernels, kind: Kind, zero_point: int, width: int
) -> None:
    torch.manual_seed(width)
    x = 3 * torch.randn(9, 2 * width if kind is Kind.GATED_SILU else width)
    weight, offset = torch.rand(width), torch.randn(width)
    one = x[:, :width]
    expected = {
        Kind.PLAIN: one,
        Kind.LAYER_NORM: F.layer_norm(one, (width,), weight, offset, 1e-5),
        Kind.RMS_NORM: F.rms_norm(one, (width,), weight, 1e-5),
        Kind.SILU: F.silu(one),
        Kind.GELU_TANH: F.gelu(one, approximate="tanh"),
        Kind.GATED_SILU: F.silu(one) * x[:, -width:],
    }[kind]
    norm = None
    if kind in (Kind.LAYER_NORM, Kind.RMS_NORM):
        norm = Norm(weight, 1e-5, offset if kind is Kind.LAYER_NORM else None)
    # Each column takes one number of the row, so that the product is what the row was rounded to.
    picking = Panels((127 * torch.eye(width)).to(torch.int8), torch.full((width,), 1 / 127), None, zero_point)
    found = kernels.multiply(picking.product(kind, norm), x, torch.empty(9, width))
    step = torch.maximum(expected.amax(1) / (255 - zero_point), -expected.amin(1) / zero_point)
    step = step.clamp_min(1e-10)[:, None] * (128 / 127 if zero_point == 128 else 1)  # 127 steps each way
    assert ((found - expected).abs() / step).max() < 0.501


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 40, 73, 151])
@pytest.mark.parametrize("columns", [37, 101, 130])
@pytest.mark.parametrize("zero_point", [128, MOSTLY_POSITIVE])
def test_integers_times_powers_of_two_lose_nothing_in_kernels(
    kernels: Kernels, rows: int, columns: int, zero_point: int
) -> None:
    """Up to 72 rows threads share columns, above it rows; 64 columns are a panel."""
    torch.manual_seed(rows)
    weight, x = torch.randint(-127, 128, (columns, 100)).float(), torch.randint(-50, 127, (rows, 100)).float()
    weight[:, 0], x[:, 0] = 127, 127 if zero_point == 128 else 191  # all scales are then 1
    bias, old = torch.arange(float(columns)), torch.randn(rows, columns)
    product = linear([weight], [bias], "int8", zero_point, kernels)
    assert isinstance(product, NativeLinear)
    assert torch.equal(product(x), x @ weight.T + bias)
    assert torch.allclose(product.onto(x, old.clone()), x @ weight.T + bias + old, rtol=1e-6)


@pytest.mark.parametrize("zero_point", [128, MOSTLY_POSITIVE])
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_stays_none_and_spoils_its_own_row_only(
    kernels: Kernels, bad: float, zero_point: int
) -> None:
    torch.manual_seed(0)
    product = linear([torch.randn(40, 30)], [None], "int8", zero_point, kernels)
    x = torch.randn(3, 30)
    clean = product(x.clone())
    x[1, 7] = bad
    found = product(x.clone())
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("rows", [5, 100])
@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize("kind", [Kind.GATED_SILU, Kind.GELU_TANH])
def test_what_stands_behind_attention_in_one_call_is_its_products_in_turn(
    kernels: Kernels, kind: Kind, quantize: Quantize, rows: int
) -> None:
    torch.manual_seed(rows)
    inner = 70 * (2 if kind is Kind.GATED_SILU else 1)
    out, up, down = (
        linear([torch.randn(*shape).bfloat16()], [torch.randn(shape[0])], quantize, kernels=kernels)
        for shape in ((50, 36), (inner, 50), (50, 70))
    )
    assert isinstance(out, NativeLinear)
    assert isinstance(up, NativeLinear)
    assert isinstance(down, NativeLinear)
    norm, attended, hidden = Norm(torch.rand(50), 1e-5), torch.randn(rows, 36), torch.randn(rows, 50)
    expected = out.onto(attended, hidden.clone())
    kernels.multiply(down.panels.product(kind), up.after(expected, norm), expected, add=True)
    assert torch.equal(Behind(out, norm, up, kind, down)(attended, hidden), expected)


def test_weights_of_two_kinds_at_once_are_refused_before_kernels_read_them() -> None:
    with pytest.raises(ValueError, match="8-bit weights have a scale and a zero point above 0"):
        Panels(torch.ones(16, 8, dtype=torch.int8), torch.ones(16), None)


@pytest.mark.parametrize("rows", [1, 8, 30])
def test_norms_before_a_product_round_as_little_as_without_kernels(kernels: Kernels, rows: int) -> None:
    torch.manual_seed(0)
    weight, gain, x = torch.randn(64, 48), torch.rand(48), 3 * torch.randn(rows, 48)
    product, plain = linear([weight], [None], "int8", kernels=kernels), Int8Linear(weight, None)
    exact = F.rms_norm(x, (48,), gain, 1e-5) @ weight.T
    assert isinstance(product, NativeLinear)
    off = [(one.after_norm(x.clone(), gain, 1e-5) - exact).norm() for one in (product, plain)]
    assert off[0] < 1.05 * off[1]
    norm = torch.nn.LayerNorm(48).requires_grad_(False)
    found = product.after_layer_norm(x, norm)
    assert (found - norm(x) @ weight.T).norm() / found.norm() < 0.02


def test_packed_weights_multiply_as_torch_does_in_bfloat16() -> None:
    torch.manual_seed(0)
    weight, bias, x = (torch.randn(*shape).bfloat16() for shape in ((64, 48), (64,), (5, 48)))
    if not PackedLinear.suits(weight):
        pytest.skip("oneDNN does not multiply in bfloat16 here")
    product, old = PackedLinear(weight, bias), torch.randn(5, 64).bfloat16()
    exact = F.linear(x.float(), weight.float(), bias.float())
    assert torch.allclose(product(x).float(), exact, rtol=0.01, atol=0.05)
    assert torch.allclose(product(x, after="swish").float(), F.silu(exact), rtol=0.01, atol=0.05)
    sum = old.clone()
    assert product.onto(x, sum) is sum
    assert torch.allclose(sum.float(), exact + old.float(), rtol=0.02, atol=0.1)


def likeliest(model: Any, seeds: range, **settings: Any) -> list[dict[int, float]]:
    """Log probabilities of the likeliest third token of answers that are computed together.

    What is said before is given, so that all engines look at the same.
    """
    inputs = [prompt(words(seed, 4 + 9 * seed), clip(1, 8), words(seed + 50, 8)) for seed in seeds]
    options = SamplingOptions(max_new_tokens=3, logprobs=100, logit_bias={5: 100.0})
    engine = Engine.from_model(model, EngineSettings(kv_bytes=1 << 20, **settings))
    answers = engine.generate(inputs, options)
    engine.check()
    return [dict(answer.last.logprobs[0].top) for answer in answers]


@pytest.mark.parametrize(
    "text", [{}, {"sliding_window": 24}, {"hidden_act": "gelu"}], ids=["all", "window", "gelu"]
)
@pytest.mark.parametrize(
    "vision", [{}, {"tower": "siglip", "hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "gelu"}]
)
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_an_engine_with_kernels_says_what_it_says_without(
    kernels: Kernels, quantize: Any, vision: dict[str, Any], text: dict[str, Any]
) -> None:
    """In chunks, with shared pages and single tokens beside them; with windows that need masks, and with an
    activation that kernels do not know."""
    quiet = tiny(
        "mistral" if text else "llama",
        vision=vision,
        text=text,
        vision_feature_select_strategy="full" if "tower" in vision else "default",
    )
    with torch.no_grad():
        for parameter in quiet.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.4)
    dtype = "bfloat16" if quantize == "none" else "auto"
    with_, without = (
        likeliest(quiet, range(5), native=native, quantize=quantize, dtype=dtype, token_budget=64)
        for native in (True, False)
    )
    exact = likeliest(quiet, range(5), dtype="float32", token_budget=64)
    for ours, others, truth in zip(with_, without, exact, strict=True):
        both = truth.keys() & ours.keys() & others.keys()
        assert len(both) > 50
        off = [sum(abs(one[id] - truth[id]) for id in both) / len(both) for one in (ours, others)]
        assert off[0] < max(1.5 * off[1], 0.02), off


def test_kernels_are_refused_where_they_would_round_or_cannot_be() -> None:
    with pytest.raises(ConfigError, match="bfloat16 and 8 bits"):
        Engine.from_model(tiny(), EngineSettings(dtype="float32", native=True))


def test_without_a_compiler_that_works_there_are_no_kernels_but_a_warning(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        found, reason = found_kernels.__wrapped__()
    assert found is None
    assert "false failed" in reason
    assert "without its C++ kernels" in caplog.text
