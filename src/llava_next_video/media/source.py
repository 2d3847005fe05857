"""Where media come from, and the hash of what is there."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media.digest import digest_of
from llava_next_video.media.fetch import FetchPolicy, is_url, open_url, short_url
from llava_next_video.media.files import open_regular
from llava_next_video.media.limits import Limits

_CHUNK = 1 << 20


@runtime_checkable
class Readable(Protocol):
    """A file object opened in binary mode, or what else gives bytes when it is read."""

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


Still = str | os.PathLike[str] | bytes | Readable | np.ndarray | Image.Image
Source = Still | Sequence[Still]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An encoded source at its start; `digest` gives the SHA-256 of its bytes, and may have to wait."""

    file: io.BufferedIOBase
    digest: Callable[[], bytes]
    name: str

    @property
    def key(self) -> bytes:
        """The SHA-256 of the source."""
        return self.digest()


@contextmanager
def opened(source: Still, limits: Limits, policy: FetchPolicy) -> Iterator[Opened]:
    """Open and hash an encoded source; what we opened is closed at the end, a file of the caller's is not.

    Raises: MediaError if it cannot be read or is empty; MediaLimitError if it has too many bytes.
    """
    ours = True
    file: io.BufferedIOBase
    if isinstance(source, bytes):
        file, name = io.BytesIO(source), f"{len(source)} bytes"
    elif isinstance(source, str) and is_url(source):
        file, name = open_url(source, limits, policy), short_url(source)
    elif isinstance(source, (str, os.PathLike)):
        file, name = open_regular(source), os.fspath(source)
    else:
        ours = False
        file, name = _rewindable(source, limits)
    try:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise MediaError(f"{name}: the file is empty (0 bytes)")
        if size > limits.bytes:
            raise MediaLimitError(f"{name}: {size} bytes, and the limit is {limits.bytes}")
        with digest_of(file, size) as digest:
            yield Opened(file=file, digest=digest, name=name)
    except OSError as error:
        raise MediaError(f"{name}: {error.strerror or error}") from error
    finally:
        if ours:
            file.close()


def _rewindable(source: object, limits: Limits) -> tuple[io.BufferedIOBase, str]:
    """A caller's file, or all that a thing with `read` holds: from its start, if it can be rewound."""
    if not isinstance(source, Readable):
        raise MediaError(
            f"{type(source).__name__} was given; expected a path, URL, bytes, file object, array, picture or "
            "list of pictures"
        )
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) else type(source).__name__
    if isinstance(source, io.BufferedIOBase) and source.seekable():
        return source, name
    data = bytearray()
    if isinstance(source, io.IOBase) and source.seekable():  # unbuffered, or spooled
        source.seek(0)
    while chunk := source.read(min(_CHUNK, limits.bytes + 1 - len(data))):
        if not isinstance(chunk, bytes):
            raise MediaError(f"{name}: the file was opened as text; open it in mode 'rb'")
        data += chunk
    return io.BytesIO(data), name


def folder_of(source: object) -> Path | None:
    """The folder this source names, if it names one.

    >>> folder_of(b"not a path") is None
    True
    """
    if not isinstance(source, (str, os.PathLike)) or (isinstance(source, str) and is_url(source)):
        return None
    try:
        path = Path(source)
        return path if path.is_dir() else None
    except (OSError, ValueError):
        return None
