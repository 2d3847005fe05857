"""Small numbers to a device and back, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def sent(
    values: Sequence[int] | Sequence[float] | Sequence[Sequence[float]],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """A tensor of these numbers on a device; whoever sends does not wait for work that the device has."""
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def fetched(ids: Tensor) -> Callable[[], list[int]]:
    """What gives the numbers of a tensor, as they are after the work that the device has now."""
    if ids.device.type == "cpu":
        values = ids.tolist()
        return lambda: values
    here = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
    here.copy_(ids, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def values_when_there() -> list[int]:
        arrived.synchronize()
        return here.tolist()

    return values_when_there
