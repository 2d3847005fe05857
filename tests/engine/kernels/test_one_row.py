"""The product of one row, against float64."""

from __future__ import annotations

import pytest
import torch
from tests.engine.kernels.conftest import DEVICE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("count", "width"), [(64, 96), (37, 1100)])
def test_one_row_is_multiplied_normed_and_added(dtype: torch.dtype, count: int, width: int) -> None:
    from llava_next_video.engine.kernels.one_row import TILES, one_row

    dice = torch.Generator().manual_seed(width)
    x, weight, norm, onto = (
        torch.randn(shape, generator=dice).to(DEVICE, dtype)
        for shape in ((1, width), (count, width), (width,), (1, count))
    )
    plain = x.double() @ weight.double().t()
    unit = (x.double().square().mean() + 1e-5).rsqrt()
    normed = (x.double() * unit * norm.double()) @ weight.double().t()
    most = 2e-6 if dtype is torch.float32 else 2e-2  # where Triton is interpreted, bfloat16 is cut off
    for tile in TILES[:3]:
        for found, wanted in (
            (one_row(x, weight, tile), plain),
            (one_row(x, weight, tile, norm=norm, epsilon=1e-5), normed),
            (one_row(x, weight, tile, onto=onto.clone()), plain + onto.double()),
        ):
            assert (found.double() - wanted).norm() / wanted.norm() < most


def test_rows_with_gaps_are_refused() -> None:
    from llava_next_video.engine.kernels.one_row import TILES, one_row

    with pytest.raises(ValueError, match="without gaps"):
        one_row(torch.zeros(1, 8, device=DEVICE), torch.zeros(8, 4, device=DEVICE).t(), TILES[0])
