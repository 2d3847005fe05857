"""One file read at two places at once."""

import io
import os
from typing import Any


class _Through(io.RawIOBase):
    """Reads an open file at a position of its own, and leaves the file's position alone."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        room = memoryview(buffer).cast("B")
        data = os.pread(self._descriptor, len(room), self._at)
        room[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = (0, self._at, os.fstat(self._descriptor).st_size)[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at


def on_disk(file: io.BufferedIOBase) -> bool:
    """Whether the file can be read past its position."""
    try:
        return hasattr(os, "pread") and file.fileno() >= 0
    except OSError:  # io.UnsupportedOperation is one: the file is in memory
        return False


def second_view(file: io.BufferedIOBase) -> io.BufferedIOBase | None:
    """Another reader of the same bytes, valid while the file is open; None for what cannot be shared."""
    if isinstance(file, io.BytesIO):
        return io.BytesIO(file.getvalue())
    return io.BufferedReader(_Through(file.fileno())) if on_disk(file) else None
