"""Small numbers to a device and back, without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SENDERS = 2


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


class Sender:
    """Numbers to a buffer on the GPU that never moves, without waiting for it."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.received = torch.zeros(count, dtype=torch.int32, device=device)
        self._waits = device.type == "cuda"
        self._sent = [torch.zeros(count, dtype=torch.int32, pin_memory=self._waits) for _ in range(_SENDERS)]
        self._left = [
            torch.cuda.Event() if self._waits else None  # type: ignore[no-untyped-call]
            for _ in range(_SENDERS)
        ]
        self._next = 0

    def send(self, numbers: NDArray[np.int32], parts: Sequence[slice]) -> None:
        """Send some of the numbers to their places; they may be changed at once."""
        which, self._next = self._next, (self._next + 1) % _SENDERS
        left = self._left[which]
        if left is not None:
            left.synchronize()  # what lies here is still on its way
        for part in parts:
            self._sent[which].numpy()[part] = numbers[part]
            self.received[part].copy_(self._sent[which][part], non_blocking=True)
        if left is not None:
            left.record()
