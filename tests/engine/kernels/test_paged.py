"""Attention over pages is what float64 says without pages."""

from __future__ import annotations

import pytest
import torch
from tests.engine.kernels.conftest import PAGE, TOLERANCE, play

SHAPES = [(2, 2, 64), (2, 2, 80), (2, 2, 128), (8, 2, 64), (7, 1, 80), (14, 2, 128)]
"""Query heads, heads of keys, width of a head: groups of 1, 4 and 7."""


def ragged(dtype: torch.dtype, heads: int, key_value_heads: int, width: int, **options: object) -> float:
    """Three requests on scattered pages, one of them alone with its first token; the worst of two steps."""
    stage = play(heads=heads, key_value_heads=key_value_heads, width=width, dtype=dtype, **options)
    stage.enter([5, 2, 9])
    stage.enter([7, 1])
    stage.enter([3])
    stage.step({0: 2 * PAGE + 2, 1: PAGE})
    return max(stage.step({0: 1, 1: 1, 2: 1}), stage.step({0: 1, 1: 1, 2: 1}, padded=4))


@pytest.mark.parametrize(("heads", "key_value_heads", "width"), SHAPES)
def test_generating_requests_of_any_length_see_their_own_pages(
    heads: int, key_value_heads: int, width: int
) -> None:
    assert ragged(torch.float32, heads, key_value_heads, width) < TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
)  # not interpreted
def test_half_precision_loses_what_it_must_and_no_more(dtype: torch.dtype) -> None:
    assert ragged(dtype, 8, 2, 128) < TOLERANCE[dtype]


def test_numbers_that_8_bits_hold_lose_nothing() -> None:
    options = {"store_dtype": torch.float8_e4m3fn, "halves": True}
    assert ragged(torch.float32, 2, 1, 80, **options) < TOLERANCE[torch.float32]


@pytest.mark.gpu  # interpreted, a number that is rounded up to a power of two becomes half of it
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keys_and_values_in_8_bits_lose_a_few_hundredths(dtype: torch.dtype) -> None:
    # A number loses 1/28 of the largest of its head at most, which is about 3 here.
    assert ragged(dtype, 8, 2, 128, store_dtype=torch.float8_e4m3fn) < 0.15
