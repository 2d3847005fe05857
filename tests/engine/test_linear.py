"""Matrix products in 8 bits: exact integers, scales a token and a row."""

from typing import Any

import pytest
import torch

from llava_next_video.engine.linear import MOSTLY_POSITIVE, Int8Linear, linear, quantized_rows
from llava_next_video.engine.linear_cuda import fp8_linear, int4_groups, int4_linear, int8_linear
from llava_next_video.engine.settings import Quantize
from llava_next_video.errors import ConfigError


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40])
def test_integers_times_powers_of_two_lose_nothing(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randint(-127, 128, (24, 32), generator=generator).float()
    weight[:, 0] = 127  # the scale of each row is then 1
    x = torch.randint(-127, 128, (rows, 32), generator=generator).float()
    x[:, 0] = 127
    bias = torch.arange(24.0)
    assert torch.equal(Int8Linear(weight, bias)(x), x @ weight.T + bias)


@pytest.mark.parametrize("rows", [3, 40])
def test_integers_mostly_above_zero_lose_nothing_either(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randint(-127, 128, (24, 32), generator=generator).float()
    weight[:, 0] = 127
    x = torch.randint(-50, 127, (rows, 32), generator=generator).float()
    x[:, 0] = 127 if rows <= 8 else 191  # few rows are rounded to 127 steps on both sides
    assert torch.equal(Int8Linear(weight, None, MOSTLY_POSITIVE)(x.clone()), x @ weight.T)


def test_what_stands_behind_a_gelu_loses_less_with_most_steps_above_zero() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(256, 512), torch.nn.functional.gelu(torch.randn(100, 512))
    exact = x @ weight.T
    even, lifted = (
        (Int8Linear(weight, None, point)(x.clone()) - exact).norm() for point in (128, MOSTLY_POSITIVE)
    )
    assert lifted < 0.9 * even


def test_an_rms_norm_before_the_product_is_that_of_torch() -> None:
    torch.manual_seed(0)
    weight, gain = torch.randn(64, 48), torch.rand(48)
    for rows in (1, 8, 30):
        x = 3 * torch.randn(rows, 48)
        exact = torch.rms_norm(x, (48,), gain, 1e-5) @ weight.T
        for quantize, apart in (("none", 1e-6), ("int8", 0.02)):
            found = linear([weight], [None], quantize).after_norm(x.clone(), gain, 1e-5)
            assert (found - exact).norm() / exact.norm() < apart


@pytest.mark.parametrize(("quantize", "apart"), [("none", 1e-6), ("int8", 0.02)])
@pytest.mark.parametrize("rows", [1, 30])
def test_a_product_is_added_to_a_sum_in_place(quantize: Quantize, apart: float, rows: int) -> None:
    torch.manual_seed(0)
    weight, bias, x, old = torch.randn(64, 48), torch.randn(64), torch.randn(rows, 48), torch.randn(rows, 64)
    exact, sum = old + x @ weight.T + bias, old.clone()
    assert linear([weight], [bias], quantize).onto(x, sum) is sum
    assert (sum - exact).norm() / exact.norm() < apart


def test_a_large_sum_in_bfloat16_is_rounded_once_though_the_product_has_a_bias() -> None:
    dice = torch.Generator().manual_seed(0)
    weight, bias, x, old = (
        torch.randn(shape, generator=dice).bfloat16() for shape in ((64, 48), (64,), (200, 48), (200, 64))
    )
    old *= 100  # beside it the rounding of product and bias is nothing
    exact = old.double() + x.double() @ weight.double().T + bias.double()
    found = linear([weight], [bias], "none").onto(x, old.clone()).double()
    # Once: the nearest number of 8 bits; twice would lose 1.4 times as much.
    assert (found - exact).norm() < 1.1 * (exact.bfloat16().double() - exact).norm()


@pytest.mark.parametrize("rows", [2, 30])
def test_each_token_has_its_own_scale(rows: int) -> None:
    weight, x = torch.randn(64, 48), torch.randn(rows, 48)
    product = Int8Linear(weight, None)
    loud = torch.cat([x[:1] * 1000, x[1:]])
    assert torch.equal(product(loud)[1:], product(x)[1:])


def test_the_loss_of_eight_bits_is_small() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(256, 512), torch.randn(100, 512)
    exact = x @ weight.T
    assert (Int8Linear(weight, None)(x) - exact).norm() / exact.norm() < 0.015


@pytest.mark.parametrize("rows", [1, 20])
def test_a_token_of_zeros_gives_the_bias(rows: int) -> None:
    bias = torch.randn(16)
    assert torch.equal(Int8Linear(torch.randn(16, 8), bias)(torch.zeros(rows, 8)), bias.expand(rows, -1))


def test_fused_weights_give_their_products_side_by_side() -> None:
    one, two, x = torch.randn(4, 8), torch.randn(6, 8), torch.randn(3, 8)
    bias = torch.randn(6)
    fused = linear([one, two], [None, bias], "none")(x)
    torch.testing.assert_close(fused, torch.cat([x @ one.T, x @ two.T + bias], dim=1))


def test_a_row_of_zeros_stays_zero() -> None:
    rows, scale = quantized_rows(torch.zeros(2, 4))
    assert not rows.any()
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize(("make", "most"), [(fp8_linear, 0.04), (int8_linear, 0.01)])
def test_weights_for_a_gpu_lose_as_little_as_their_bits_allow(make: Any, most: float) -> None:
    dice = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 64, generator=dice).bfloat16()
    bias = torch.randn(48, generator=dice).bfloat16()
    product = make(weight, bias)
    for rows in (1, 9, 100):
        x = torch.randn(rows, 64, generator=dice).bfloat16()
        exact = x.double() @ weight.double().t() + bias.double()
        assert (product(x).double() - exact).norm() / exact.norm() < most
        added = product.onto(x, torch.ones(rows, 48, dtype=torch.bfloat16))
        assert (added.double() - exact - 1).norm() / exact.norm() < most + 0.01
    assert product.weight_bytes == product.multiplications == 48 * 64


def test_four_bits_stand_for_weights_to_half_a_step() -> None:
    weight = torch.randn(16, 256, generator=torch.Generator().manual_seed(1))
    levels, scale_and_zero = int4_groups(weight, 128)
    assert int(levels.min()) == 0
    assert int(levels.max()) == 15
    step, middle = scale_and_zero.transpose(0, 1).unbind(2)  # rows x groups
    # torch's kernel reads a level as (level - 8) * step + what level 8 stands for.
    read = (levels.view(16, 2, 128) - 8) * step[..., None] + middle[..., None]
    assert ((read - weight.view(16, 2, 128)).abs() <= 0.501 * step[..., None]).all()


def test_rows_that_make_no_groups_of_four_bits_are_refused() -> None:
    with pytest.raises(ConfigError, match="16 rows of 100: take int8"):
        int4_linear(torch.zeros(16, 100), None)
