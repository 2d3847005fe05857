"""A clip from one process to another, its pixels not copied.

Frames go into a file that exists in memory only, and the other side maps it; through a pipe they would be
copied four times. Where the system has no such files, and for what is small, it is a pipe after all.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

_WORTH_A_FILE = 1 << 22
"""Bytes. A map keeps its file open, and a process may have some thousand: a gigabyte of clips are 256."""


def give(line: Connection, value: object) -> None:
    """Send a value; the line is one end of a `Pipe()` of both directions."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    sizes = [buffer.raw().nbytes for buffer in buffers]
    if sum(sizes) < _WORTH_A_FILE or not hasattr(os, "memfd_create"):
        line.send((pickle.dumps(value), ()))
        return
    file = os.memfd_create("frames", os.MFD_CLOEXEC)
    try:
        for buffer in buffers:
            _write(file, buffer.raw())
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
        pages = memoryview(mmap.mmap(file, sum(sizes), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
    finally:
        os.close(file)
    return pickle.loads(head, buffers=_pieces(pages, sizes))


def _write(file: int, content: memoryview) -> None:
    while content:
        content = content[os.write(file, content) :]


def _pieces(pages: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [pages[end - size : end] for end, size in zip(ends, sizes, strict=True)]
