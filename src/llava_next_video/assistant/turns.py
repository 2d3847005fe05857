"""One thread at a time, in the order in which they came; what they do in their turn is their business."""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """A lock that nobody can take twice while another thread waits for it.

    The thread whose turn it is may enter again: a forgotten iterator may be cleaned up in the middle of it.
    """

    def __init__(self) -> None:
        self._queue, self._lock = threading.RLock(), threading.RLock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        if self._owner != me:
            with self._queue:
                self._lock.acquire()
            self._owner = me
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._lock.release()
