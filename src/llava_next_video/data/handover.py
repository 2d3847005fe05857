"""A clip from one process to another, its pixels not copied.

Frames go into a file that exists in memory only, and the other side maps it; through a pipe they would be
copied four times. Where the system has no such files, and for what is small, it is a pipe after all.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np
from jaxtyping import UInt8

from llava_next_video.media import new_room

_WORTH_A_FILE = 1 << 22
"""Bytes. A map keeps its file open, and a process may have some thousand: a gigabyte of clips are 256."""

_HAS_FILES = hasattr(os, "memfd_create")


class Desk:
    """Frames are written here, so that `give` need not copy them; it holds those of one clip at a time."""

    def __init__(self) -> None:
        """Nothing is on it yet."""
        self._file: int | None = None
        self._pages: memoryview = memoryview(b"")

    def room(self, shape: tuple[int, int, int, int]) -> UInt8[np.ndarray, "frames height width 3"]:
        """An array of that shape, in a file if it is worth one; what was there before is dropped."""
        self.clear()
        size = math.prod(shape)
        if size < _WORTH_A_FILE or not _HAS_FILES:
            return new_room(shape)
        self._file = _file_in_memory()
        os.truncate(self._file, size)
        self._pages = _mapped(self._file, size)
        return np.frombuffer(self._pages, dtype=np.uint8).reshape(shape)

    def file_of(self, buffers: Sequence[memoryview]) -> int | None:
        """The file that holds just these bytes; None if there is none."""
        alone = len(buffers) == 1 and self._file is not None
        return self._file if alone and _place(buffers[0]) == _place(self._pages) else None

    def clear(self) -> None:
        """Let go of what is there; arrays in it stay as long as somebody has them."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._pages = None, memoryview(b"")


def give(line: Connection, value: object, desk: Desk | None = None) -> None:
    """Send a value; the line is one end of a `Pipe()` of both directions.

    An array that lies on the `desk` from end to end is not copied.
    """
    pickled: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=pickled.append)
    buffers = [buffer.raw() for buffer in pickled]
    sizes = [buffer.nbytes for buffer in buffers]
    if sum(sizes) < _WORTH_A_FILE or not _HAS_FILES:
        line.send((pickle.dumps(value), ()))
        return
    if desk is not None and (lies := desk.file_of(buffers)) is not None:
        line.send((head, sizes))
        send_handle(line, lies, None)
        return
    file = _file_in_memory()
    try:
        for buffer in buffers:
            _write(file, buffer)
        line.send((head, sizes))
        send_handle(line, file, None)
    finally:
        os.close(file)


def take(line: Connection) -> object:
    """What the other side gives.

    Raises: EOFError or OSError if the other side is gone, or no file can be opened here.
    """
    head, sizes = line.recv()
    if not sizes:
        return pickle.loads(head)
    try:
        file = recv_handle(line)
    except RuntimeError as error:  # the standard library's word for a message without the file
        raise OSError(f"the frames did not arrive ({error}); are too many files open?") from error
    try:
        pages = _mapped(file, sum(sizes))
    finally:
        os.close(file)
    return pickle.loads(head, buffers=_pieces(pages, sizes))


def _file_in_memory() -> int:
    return os.memfd_create("frames", os.MFD_CLOEXEC)


def _mapped(file: int, size: int) -> memoryview:
    return memoryview(mmap.mmap(file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))


def _place(buffer: memoryview) -> tuple[int, int]:
    """Where its bytes begin in memory, and how many there are."""
    array = np.frombuffer(buffer, dtype=np.uint8)
    return array.ctypes.data, array.nbytes


def _write(file: int, content: memoryview) -> None:
    while content:
        content = content[os.write(file, content) :]


def _pieces(pages: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [pages[end - size : end] for end, size in zip(ends, sizes, strict=True)]
