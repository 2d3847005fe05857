"""Attention of long chunks, and what it asks of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llava_next_video.engine.plan import Long
from llava_next_video.engine.prefill import chosen_prefill, flash, missing_flash_arguments, sdpa


def test_torch_still_has_the_flash_attention_that_we_give_chunks_to() -> None:
    assert not missing_flash_arguments(), (
        f"torch {torch.__version__} changed its private _flash_attention_forward: it no longer takes "
        f"{missing_flash_arguments()}. The engine falls back to scaled_dot_product_attention, which is "
        "slower; adapt engine/prefill.py"
    )


def test_without_a_gpu_or_in_full_precision_the_public_attention_is_chosen() -> None:
    assert chosen_prefill(torch.device("cpu"), torch.bfloat16) == "sdpa"
    assert chosen_prefill(torch.device("cuda"), torch.float32) == "sdpa"


LONG = Long(first=0, end=14, queries=(5, 9), keys=(12, 9))


def wanted(queries: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
    """Token by token: the last of a chunk sees the last key of its part."""
    found, asked, seen = [], 0, 0
    for count, context in zip(LONG.queries, LONG.keys, strict=True):
        for token in range(count):
            end = seen + context - count + token + 1
            begin = seen if window is None else max(seen, end - window)
            key, value = (both[begin:end].repeat_interleave(2, dim=1) for both in (keys, values))
            weights = torch.softmax(torch.einsum("hw,thw->ht", queries[asked + token], key) / 8, dim=1)
            found.append(torch.einsum("ht,thw->hw", weights, value))
        asked, seen = asked + count, seen + context
    return torch.stack(found)


def drawn(dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((14, 4, 64), (21, 2, 64), (21, 2, 64))
    return [torch.randn(*shape, generator=draw).to(dtype) for shape in shapes]


@pytest.mark.parametrize("window", [None, 4])
def test_the_public_attention_sees_what_lies_before_a_chunk(window: int | None) -> None:
    inputs = drawn(torch.float64)
    torch.testing.assert_close(sdpa(*inputs, LONG, window), wanted(*inputs, window))


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flash_attention_sees_the_same(window: int | None, dtype: torch.dtype) -> None:
    inputs = drawn(dtype)
    ends = [
        torch.tensor([0, *torch.tensor(n).cumsum(0)], dtype=torch.int32) for n in (LONG.queries, LONG.keys)
    ]
    begins = (ends[0].cuda(), ends[1].cuda())
    found = flash(*(one.cuda() for one in inputs), begins, LONG, window)
    expected = wanted(*(one.double() for one in inputs), window)
    torch.testing.assert_close(found.cpu().double(), expected, atol=2e-2, rtol=2e-2)
