"""Rows that each continue a request take one launch, and get what three launches give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.engine.kernels.conftest import DEVICE, PAGE, TOLERANCE, Play, play
from torch import Tensor

LENGTHS = (5 * PAGE + 1, PAGE, 0)
"""Tokens of the requests before they generate: several splits, one page, nothing."""

SHAPES = [
    ({"heads": 1, "key_value_heads": 1}, torch.float32),
    ({"heads": 4, "key_value_heads": 1, "width": 80, "window": 3 * PAGE}, torch.float32),
    *(
        pytest.param({"heads": 2 * group, "width": width, **more}, dtype, marks=pytest.mark.gpu)
        for dtype in (torch.bfloat16, torch.float16)
        for group, width in ((1, 128), (4, 80), (7, 64))
        for more in ({}, {"store_dtype": torch.float8_e4m3fn}, {"window": 3 * PAGE})
    ),
]
"""What is not as usual, and the precision."""


def started(options: dict[str, Any], dtype: torch.dtype) -> Play:
    """Requests whose first tokens are stored, before they generate."""
    stage = play(dtype=dtype, **options)
    for number, pages in enumerate(([5, 2, 9, 40, 41, 3, 8], [7, 6], [11])):
        stage.enter(pages)
        if LENGTHS[number]:
            stage.step({number: LENGTHS[number]})
    return stage


@pytest.mark.parametrize(("options", "dtype"), SHAPES)
def test_one_launch_gives_what_three_give(options: dict[str, Any], dtype: torch.dtype) -> None:
    from llava_next_video.engine.attention_cuda import Few

    one, three = started(options, dtype), started(options, dtype)
    three.attention.few = Few(rows=0)
    dice = torch.Generator().manual_seed(1)
    for step in range(2):  # the second sees the keys and values that the first stored
        shape = (4, one.heads + 2 * one.key_value_heads, one.width)
        heads = torch.randn(shape, generator=dice).to(DEVICE, dtype)
        angles = torch.randn(4, one.width // 2, generator=dice)
        turns = torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1).to(DEVICE)
        found = []
        for stage in (one, three):
            chunks = [stage.chunk(number, length + step, 1) for number, length in enumerate(LENGTHS)]
            stage.attention.begin(chunks, 4)
            given = heads.clone()
            found.append(stage.attention.attend(0, given[:, : one.heads], given[:, one.heads :], turns))
        # Weights of the new token are not rounded; rounding of a stored number may fall to the other side.
        narrow = "store_dtype" in options
        torch.testing.assert_close(*found, rtol=0, atol=0.2 if narrow else TOLERANCE[dtype])


@pytest.mark.skipif(torch.cuda.is_available(), reason="launches are counted where Triton interprets them")
def test_a_few_rows_that_generate_launch_one_kernel_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.interpreter import GridExecutor

    from llava_next_video.engine.attention_cuda import Few

    launched: list[str] = []
    run = GridExecutor.__call__

    def counted(self: Any, *arguments: Any, **options: Any) -> None:
        launched.append(self.fn.__name__)
        run(self, *arguments, **options)

    monkeypatch.setattr(GridExecutor, "__call__", counted)
    stage = play(heads=1, key_value_heads=1)
    for number in range(2):
        stage.enter([3 * number, 3 * number + 1])
    stage.attention.few = Few(rows=2, tokens=5)

    def step(counts: dict[int, int]) -> tuple[list[str], Any]:
        launched.clear()
        stage.step(counts)
        return list(launched), stage.attention.graph_key

    three = ["_store_kernel", "_split_kernel", "_merge_kernel"]
    assert step({0: 2, 1: 1}) == (three, None)
    names, key = step({0: 1, 1: 1})  # look at 3 and 2 tokens
    assert names == ["_generating_kernel"]
    assert key.few
    names, key = step({0: 1, 1: 1})  # at 4 and 3
    assert names == three
    assert not key.few


@pytest.mark.gpu
def test_replays_of_a_step_give_the_same_bits() -> None:
    stage = play(
        heads=32, key_value_heads=32, width=128, dtype=torch.bfloat16, programs=None, page_tokens=16,
        tokens=1024, context=2048, pages=160,
    )  # fmt: skip
    stage.enter(range(100))
    stage.enter(range(100, 160))
    stage.step({0: 600})
    stage.step({0: 600, 1: 800})
    dice = torch.Generator().manual_seed(0)
    given = torch.randn(2, 96, 128, generator=dice).to(DEVICE, torch.bfloat16)
    stage.attention.begin([stage.chunk(0, 1200, 1), stage.chunk(1, 800, 1)], 2)
    stage.attend(given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out: Tensor = stage.attend(given)
    graph.replay()
    wanted = out.clone()
    for _ in range(100):
        graph.replay()
        assert torch.equal(out, wanted)
