"""Small operations of the kernels are torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.engine.kernels.conftest import DEVICE, PAGE, TOLERANCE, play
from torch import Tensor

from llava_next_video.engine.decoder import rotate

DTYPES = [torch.float32, *(pytest.param(d, marks=pytest.mark.gpu) for d in (torch.float16, torch.bfloat16))]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype).to(DEVICE)


def far(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((found.double() - wanted.double()).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_rms_norm_is_torchs(dtype: torch.dtype) -> None:
    from llava_next_video.engine.kernels.fused import rms_norm

    x, weight = drawn(3, 1152, dtype=dtype), drawn(1152, dtype=dtype)
    wanted = F.rms_norm(x.double(), (1152,), weight.double(), 1e-5)
    assert far(rms_norm(x, weight, 1e-5), wanted) < TOLERANCE[dtype]
    assert rms_norm(x[:0], weight, 1e-5).shape == (0, 1152)
    with pytest.raises(ValueError, match="give a contiguous one"):
        rms_norm(x.t(), x[0, :3], 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_and_multiply_are_torchs(dtype: torch.dtype) -> None:
    from llava_next_video.engine.kernels.fused import silu_and_multiply

    both = drawn(2, 2600, dtype=dtype)
    gate, up = both.double().chunk(2, dim=1)
    assert far(silu_and_multiply(both), F.silu(gate) * up) < TOLERANCE[dtype]


def turns_of(context: int, width: int) -> tuple[Tensor, Tensor]:
    """The turns of each position as complex numbers, and as the kernels take them."""
    frequencies = 10000 ** (-torch.arange(width // 2) / (width // 2))
    angles = torch.arange(context)[:, None] * frequencies
    turns = torch.polar(torch.ones_like(angles), angles).to(DEVICE)
    return turns, torch.view_as_real(turns).flatten(1)


def test_turns_are_those_of_the_rope() -> None:
    from llava_next_video.engine.kernels.fused import turns_of

    table = torch.tensor([[7, 0, 1], [0, 5, 0], [40959, 3, 0]], dtype=torch.int32, device=DEVICE)
    frequencies = 10000 ** (-torch.arange(40, device=DEVICE) / 40) / torch.tensor(
        [[1.0], [4.0]], device=DEVICE
    )
    strengths = torch.tensor([1.0, 1.25], device=DEVICE)
    angles = table[:, 0, None].double() * frequencies[table[:, 2]].double()
    wanted = torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1) * strengths[table[:, 2], None]
    found = turns_of(table[:, 0], table[:, 2], frequencies, strengths)
    # An angle of 40,959 in float32 is known to half of its last bit, 0.002.
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=2e-3)
    torch.testing.assert_close(found[:2].double(), wanted[:2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_can_turn_queries_and_keys_on_their_way(dtype: torch.dtype) -> None:
    turns, flat = turns_of(64, 80)
    plain, turning = (play(heads=7, key_value_heads=1, width=80, dtype=dtype) for _ in range(2))
    for stage in (plain, turning):
        stage.enter([9, 3])
    for start, count in ((0, PAGE), (PAGE, 1), (PAGE + 1, 1)):  # the last see what the others stored
        heads = drawn(count, 9, 80, dtype=dtype)
        turned = heads.clone()
        for stage in (plain, turning):
            stage.attention.begin([stage.chunk(0, start, count)])
        rotate(turned[:, :8], turns[plain.attention.positions[:count]][:, None])
        wanted = plain.attention.attend(0, turned[:, :7], turned[:, 7:])
        of_rows = flat[start : start + count]
        found = turning.attention.attend(0, heads[:, :7], heads[:, 7:], of_rows)
        if count > 1:
            assert far(heads, turned) < TOLERANCE[dtype]
        assert far(found, wanted) < TOLERANCE[dtype]
