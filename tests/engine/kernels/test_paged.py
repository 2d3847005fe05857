"""Attention over pages is what float64 says without pages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.engine.kernels.conftest import PAGE, TOLERANCE, play

EXACT = TOLERANCE[torch.float32]
SHAPES = [
    (4, 1, 80, torch.float16),
    *(
        pytest.param(group * 2, 2, width, torch.float32, marks=pytest.mark.slow)
        for group in (1, 4, 7)
        for width in (64, 80, 128)
    ),
    *(
        pytest.param(*shape, marks=pytest.mark.gpu)
        for shape in (
            (2, 2, 128, torch.bfloat16),  # which is not interpreted
            (2, 2, 64, torch.float16),
            (8, 2, 80, torch.float16),
            (14, 2, 128, torch.bfloat16),
        )
    ),
]
"""Query heads, heads of keys, width of a head: groups of 1, 4 and 7."""


def ragged(heads: int, key_value_heads: int, width: int, dtype: torch.dtype, **options: Any) -> float:
    """Three requests on scattered pages, the last with nothing yet; the worst of two steps."""
    stage = play(
        heads=heads, key_value_heads=key_value_heads, width=width, dtype=dtype, long_from=2, **options
    )
    stage.enter([5, 2, 9, 40, 41, 3, 8, 1, 30, 50])
    stage.enter([7, 6])
    stage.enter([11])
    stage.step({0: 8 * PAGE + 2, 1: PAGE})
    return max(stage.step({2: 1, 0: 1, 1: 1}), stage.step({0: 1, 1: 1}, padded=4))


@pytest.mark.parametrize(("heads", "key_value_heads", "width", "dtype"), SHAPES)
def test_generating_requests_of_any_length_see_their_own_pages(
    heads: int, key_value_heads: int, width: int, dtype: torch.dtype
) -> None:
    assert ragged(heads, key_value_heads, width, dtype) < TOLERANCE[dtype]


def test_numbers_that_8_bits_hold_lose_nothing() -> None:
    assert ragged(2, 1, 80, torch.float32, store_dtype=torch.float8_e4m3fn, halves=True) < EXACT


@pytest.mark.gpu  # interpreted, a number that is rounded up to a power of two becomes half of it
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keys_and_values_in_8_bits_lose_a_few_hundredths(dtype: torch.dtype) -> None:
    # A number loses 1/28 of the largest of its head at most, which is 3 to 4 here, and of keys as much.
    assert ragged(8, 2, 128, dtype, store_dtype=torch.float8_e4m3fn) < 0.2


@pytest.mark.gpu
@pytest.mark.parametrize("narrow", [False, True])
def test_a_recorded_step_serves_the_next_ones(narrow: bool) -> None:
    stage = play(
        heads=8,
        key_value_heads=2,
        width=128,
        dtype=torch.bfloat16,
        store_dtype=torch.float8_e4m3fn if narrow else None,
        programs=None,
        page_tokens=16,
        tokens=1024,
        context=1024,
        pages=64,
    )
    for number in range(3):
        stage.enter(range(number, 63, 3))
    tolerance = 0.2 if narrow else TOLERANCE[torch.bfloat16]
    assert stage.step({0: 310, 1: 90, 2: 5}) < tolerance
    assert stage.step({0: 1, 1: 1, 2: 1}, padded=4) < tolerance
    key = stage.attention.graph_key
    given = torch.zeros(4, 12, 128, dtype=torch.bfloat16, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = stage.attend(given)

    def replay(heads: torch.Tensor) -> torch.Tensor:
        given.copy_(heads)
        graph.replay()
        return out

    for counts in ({0: 1, 1: 1, 2: 1}, {2: 1, 0: 1}, {1: 1, 2: 1, 0: 1}):
        assert stage.step(counts, padded=4, run=replay) < tolerance
        assert stage.attention.graph_key == key


@pytest.mark.parametrize("programs", [1, 2, 12], ids=["one split", "two", "more than there is to read"])
def test_any_number_of_splits_gives_the_same(programs: int) -> None:
    stage = play(heads=1, key_value_heads=1, programs=programs)
    stage.enter([5, 2, 9, 40, 41, 3, 8, 1, 30, 50])
    stage.step({0: 9 * PAGE})
    assert stage.step({0: 1}) < EXACT
    assert stage.step({0: 1}) < EXACT  # who counts splits begins at zero again


@pytest.mark.parametrize(
    ("dtype", "group"), [(torch.float32, 1), pytest.param(torch.bfloat16, 4, marks=pytest.mark.gpu)]
)
def test_requests_with_a_common_beginning_read_it_once(dtype: torch.dtype, group: int) -> None:
    stage = play(heads=group, key_value_heads=1, dtype=dtype, long_from=9)
    video, other = [9, 3, 4, 20, 22], [30, 31, 29, 28]
    for number, first in enumerate([video, video, video, other, other]):
        stage.enter([*first, 40 + number])
    stage.enter([60])
    stage.step({0: 5 * PAGE, 3: 4 * PAGE})
    for member in (1, 2):
        stage.share(member, like=0, tokens=5 * PAGE)
    stage.share(4, like=3, tokens=4 * PAGE)
    assert stage.step({1: 2, 4: 1, 2: 1, 0: 1, 3: 1}) < TOLERANCE[dtype]
    assert stage.attention.graph_key is None
    assert stage.step({2: 1, 3: 1, 5: 1, 1: 1, 4: 1, 0: 1}, padded=8) < TOLERANCE[dtype]
    assert stage.attention.graph_key.shared == 2
    assert stage.step({2: 1, 5: 1, 3: 1}, padded=8) < TOLERANCE[dtype]
    assert stage.attention.graph_key.shared == 0


@pytest.mark.parametrize("counts", [{0: 1, 1: 1}, {0: 20, 1: 3}], ids=["tokens", "chunks"])
def test_a_window_hides_what_lies_before_it(counts: dict[int, int]) -> None:
    stage = play(window=2 * PAGE + 1, heads=2, key_value_heads=1, long_from=18)
    for number in (0, 1):
        stage.enter(range(number * 16, number * 16 + 16))
    stage.step({0: 5 * PAGE, 1: PAGE})
    assert stage.step(counts) < EXACT


LONG = [
    (torch.float32, None, False),
    (torch.float32, 11, False),
    pytest.param(torch.float16, 11, False, marks=pytest.mark.gpu),
    pytest.param(torch.bfloat16, None, True, marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("dtype", "window", "narrow"), LONG)
def test_long_chunks_stand_beside_short_ones(dtype: torch.dtype, window: int | None, narrow: bool) -> None:
    store = torch.float8_e4m3fn if narrow else None
    stage = play(dtype=dtype, window=window, heads=4, key_value_heads=2, long_from=9, store_dtype=store)
    for number in range(5):
        stage.enter(range(number * 8, number * 8 + 8))
    tolerance = 0.2 if narrow else TOLERANCE[dtype]
    assert stage.step({0: 12, 1: 10}) < tolerance  # long, with nothing before
    # A token, a long chunk behind another, a short one between two long ones, a short one at the end.
    assert stage.step({0: 1, 1: 9, 2: 2, 3: 11, 4: 3}) < tolerance


def test_a_request_that_was_sent_back_finds_its_new_pages() -> None:
    stage = play(requests=1)  # one page table for two requests
    for number in range(2):
        stage.enter([number])
    for number in (0, 1, 0):
        assert stage.step({number: 1}) < EXACT
    first = stage.stories[0]
    first.request.pages, first.keys, first.values = [20, 21], [], []
    assert stage.step({0: PAGE + 1}) < EXACT


def test_steps_that_cannot_be_laid_out_are_refused() -> None:
    stage = play(tokens=8, requests=2)
    for number in range(3):
        stage.enter([number])
    with pytest.raises(ValueError, match="only steps of one token each can be padded; this one has 3 for 2"):
        stage.step({0: 2, 1: 1}, padded=4)
    with pytest.raises(ValueError, match="9 tokens padded to 9 do not fit 8 rows"):
        stage.step({0: 9})
    with pytest.raises(ValueError, match="3 chunks in a step, and there are 2 page tables"):
        stage.step({0: 1, 1: 1, 2: 1})
