"""The cores of this machine, which decoders and the model share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Cores:
    """Gives the model as many threads as the decoders at work leave cores, one at least.

    The threads of an operation wait for the last of them. With more threads than cores that one often stands
    behind a decoder, and the others spin: on two cores with two decoders, the tiny model then took 1.5 times
    the processor time.
    """

    def __init__(self) -> None:
        """All cores are those that torch uses now."""
        self._all = self._threads = torch.get_num_threads()
        self._lock = threading.Lock()
        self._taken = 0

    @contextmanager
    def one_taken(self) -> Iterator[None]:
        """A decoder is at work meanwhile; for any thread."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def share(self) -> None:
        """Before a step, in the thread of the model: use what is free now."""
        threads = max(1, self._all - self._taken)
        if threads != self._threads:
            torch.set_num_threads(threads)
            self._threads = threads

    def give_back(self) -> None:
        """When the model is done: torch uses all cores again."""
        torch.set_num_threads(self._all)

    def _count(self, change: int) -> None:
        with self._lock:
            self._taken += change
