"""The product of a few rows, against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.engine.kernels.conftest import DEVICE
from torch import Tensor

HALF = pytest.param(torch.bfloat16, marks=pytest.mark.gpu)  # see docs/log.md: bits are multiplied here


def drawn(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    dice = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=dice).to(DEVICE, dtype) for shape in shapes]


def check(rows: int, cut: Any, dtype: torch.dtype, count: int, width: int) -> None:
    """The product alone, behind a norm, on top of something, and behind a gate; with a bias and without."""
    from llava_next_video.engine.kernels.few_rows import few_rows

    x, weight, norm, onto, bias = drawn(
        dtype, (rows, width), (count, width), (width,), (rows, count), (count,)
    )
    weight /= width**0.5
    exact, matrix = x.double(), weight.double().t()
    normed = exact * (exact.square().mean(1, keepdim=True) + 1e-5).rsqrt() * norm.double()
    gate, up = (normed @ matrix + bias.double()).chunk(2, dim=1)
    for found, wanted in (
        (few_rows(x, weight, cut), exact @ matrix),
        (few_rows(x, weight, cut, norm=norm, epsilon=1e-5), normed @ matrix),
        (few_rows(x, weight, cut, bias=bias, onto=onto.clone()), exact @ matrix + bias + onto.double()),
        (few_rows(x, weight, cut, bias=bias, norm=norm, epsilon=1e-5, gated=True), F.silu(gate) * up),
    ):
        assert found.shape == wanted.shape
        most = 2e-6 if dtype is torch.float32 else 2e-2  # where Triton is interpreted, bfloat16 is cut off
        assert (found.double() - wanted).norm() / wanted.norm() < most


@pytest.mark.parametrize(
    ("dtype", "count", "width"), [(torch.float32, 64, 96), (torch.bfloat16, 38, 1100)], ids=str
)
def test_one_row_is_multiplied_normed_added_and_gated(dtype: torch.dtype, count: int, width: int) -> None:
    from llava_next_video.engine.kernels.few_rows import ONE_ROW

    for cut in ONE_ROW:
        check(1, cut, dtype, count, width)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_a_few_rows_are_multiplied_normed_added_and_gated(dtype: torch.dtype, rows: int) -> None:
    from llava_next_video.engine.kernels.few_rows import FEW_ROWS

    for cut in FEW_ROWS:
        check(rows, cut, dtype, 76, 600)


def test_gaps_and_too_many_rows_are_refused() -> None:
    from llava_next_video.engine.kernels.few_rows import FEW_ROWS, ONE_ROW, few_rows

    square = torch.zeros(8, 8, device=DEVICE)
    with pytest.raises(ValueError, match="without gaps"):
        few_rows(square[:1], square[:, :4].t(), ONE_ROW[0])
    with pytest.raises(ValueError, match="2 rows, and this cut takes 1"):
        few_rows(square[:2], square, ONE_ROW[0])
    with pytest.raises(ValueError, match="17 rows, and this cut takes 16"):
        few_rows(square.new_zeros(17, 8), square, FEW_ROWS[0])


@pytest.mark.parametrize("rows", [1, 5, 17])
@pytest.mark.parametrize("biased", [False, True])
def test_a_product_that_takes_our_kernels_is_torchs(rows: int, biased: bool) -> None:
    from llava_next_video.engine.linear_wide import WideLinear

    x, weight, norm, bias = drawn(torch.float32, (rows, 48), (32, 48), (48,), (32,))
    own, torchs = (WideLinear(weight, bias if biased else None, who) for who in ("own", "torch"))
    on = torch.ones(rows, 32, device=DEVICE)
    for found, wanted in (
        (own(x), torchs(x)),
        (own.after_norm(x, norm, 1e-5), torchs.after_norm(x, norm, 1e-5)),
        (own.gated_after_norm(x, norm, 1e-5, F.silu), torchs.gated_after_norm(x, norm, 1e-5, F.silu)),
        (own.gated_after_norm(x, norm, 1e-5, torch.relu), torchs.gated_after_norm(x, norm, 1e-5, torch.relu)),
        (own.onto(x, on.clone()), torchs.onto(x, on.clone())),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_the_fastest_of_all_tries_is_taken() -> None:
    from llava_next_video.engine.linear_wide import CHOICES, fastest

    [weight] = drawn(torch.bfloat16, (512, 256))
    for alone in (True, False):
        cut = fastest(weight, "gated", alone=alone)
        times = CHOICES[weight.shape, weight.dtype, weight.device, "gated", alone].times_ms
        assert times[cut] <= min(times.values()) / 0.98  # near ties go to torch
        assert len(times) > 1
