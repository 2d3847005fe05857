"""The SHA-256 of a source, taken while it is decoded."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from llava_next_video.media.view import on_disk

_CHUNK = 1 << 20
# Below this a thread costs more than it saves.
_WORTH_A_THREAD = 8 << 20


@contextmanager
def digest_of(file: io.BufferedIOBase, size: int) -> Iterator[Callable[[], bytes]]:
    """A function that gives the file's SHA-256, waiting for it if need be; the file stays at its start.

    A large file on disk is hashed by a second thread, which reads past the file's position and so leaves
    it to the decoder. Leaving the block stops the thread.
    """
    file.seek(0)
    if size < _WORTH_A_THREAD or not on_disk(file):
        key = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        yield lambda: key
        return
    enough = Event()
    with ThreadPoolExecutor(1) as beside:
        digest: Future[bytes] = beside.submit(_read_through, file.fileno(), enough)
        try:
            yield digest.result
        finally:
            enough.set()


def _read_through(descriptor: int, enough: Event) -> bytes:
    whole = hashlib.sha256()
    at = 0
    while not enough.is_set() and (chunk := os.pread(descriptor, _CHUNK, at)):
        whole.update(chunk)
        at += len(chunk)
    return whole.digest()
