"""Matrix products in 8 bits: exact integers, scales a token and a row."""

import pytest
import torch

from llava_next_video.engine.linear import Int8Linear, linear, quantized_rows


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 40])
def test_integers_times_powers_of_two_lose_nothing(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randint(-127, 128, (24, 32), generator=generator).float()
    weight[:, 0] = 127  # the scale of each row is then 1
    x = torch.randint(-127, 128, (rows, 32), generator=generator).float()
    x[:, 0] = 127
    bias = torch.arange(24.0)
    assert torch.equal(Int8Linear(weight, bias)(x), x @ weight.T + bias)


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
