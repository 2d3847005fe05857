"""Opening files that end."""

import io
import os
import stat

from llava_next_video.errors import MediaError


def open_regular(path: str | os.PathLike[str]) -> io.BufferedIOBase:
    """The file opened for reading; a pipe or device is refused, because reading it may never end.

    Raises: MediaError if it is missing, unreadable, a folder or not a regular file.
    """
    try:
        # Opening a pipe without NONBLOCK would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MediaError(f"{os.fspath(path)}: {reason[:1].lower()}{reason[1:]}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MediaError(f"{os.fspath(path)}: not a regular file")
    return os.fdopen(descriptor, "rb")
