"""What processes that share a network do together: add up, and hand out.

A group of its own beside torch's default one, so that a program that has a default group keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch import distributed as dist

MEETING_S = 120.0
"""Seconds in which all must have come to a meeting."""

STEP_S = 300.0
"""Seconds after which a process that is alive but does not take part is given up."""

LEADER = 0

Group: TypeAlias = Any  # torch's stubs know nothing that its groups do


class PartedError(RuntimeError):
    """Another process is gone, or did not take part in time."""


class Collective:
    """One process among several. Until it has joined the others it is alone, and its sums are its own.

    On a CPU they talk through gloo, over the loopback interface only; on GPUs through NCCL.
    """

    def __init__(self, *, rank: int, count: int, device: torch.device) -> None:
        self._rank, self._count, self._device = rank, count, device
        self._group: Group | None = None
        self._left = False

    def join(self, meeting: Path) -> None:
        """Meet the others; `meeting` is a file that all of them see and nobody has used.

        Raises:
            PartedError: They did not come.
        """
        try:
            self._group = self._met(meeting)
        except RuntimeError as error:
            raise PartedError(f"they did not meet within {MEETING_S:g} s: {error}") from error
        if self._left:  # meanwhile, when there was nothing yet that could be ended
            self.leave()
        self.add_up(torch.zeros(1, device=self._device))  # NCCL meets when it is first needed

    def _met(self, meeting: Path) -> Group:
        store: Any = dist.FileStore(str(meeting), self._count)  # type: ignore[attr-defined]
        store.set_timeout(timedelta(seconds=MEETING_S))
        if self._device.type == "cuda":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timedelta(seconds=STEP_S)
            return dist.ProcessGroupNCCL(store, self._rank, self._count, options)
        local: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        local._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        local._timeout = timedelta(seconds=STEP_S)
        return dist.ProcessGroupGloo(store, self._rank, self._count, local)

    def add_up(self, tensor: Tensor) -> None:
        """The sum over all processes, in place.

        Raises:
            PartedError: Another one does not take part.
        """
        group = self._taking_part()
        if group is not None:
            _done(lambda: group.allreduce([tensor]))

    def hand_out(self, tensor: Tensor) -> None:
        """What the leader has, in place.

        Raises:
            PartedError: Another one does not take part.
        """
        group, options = self._taking_part(), dist.BroadcastOptions()
        options.rootRank = LEADER
        if group is not None:
            _done(lambda: group.broadcast([tensor], options))

    def leave(self) -> None:
        """End what is under way here, also when another process is gone and would be waited for."""
        self._left = True
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _taking_part(self) -> Group | None:
        if self._left:
            raise PartedError("this process has left the others")
        return self._group


def _done(begin: Callable[[], dist.Work]) -> None:
    """Wait for it; on a GPU only what is computed next waits."""
    try:
        begin().wait()
    except RuntimeError as error:
        raise PartedError(str(error)) from error
