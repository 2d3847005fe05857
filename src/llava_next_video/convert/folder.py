"""Folders that appear whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llava_next_video.disk import settle_folder, settle_tree
from llava_next_video.errors import CheckpointError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def new_folder(out: Path, *, size_bytes: int = 0) -> Iterator[Path]:
    """A folder to fill, which gets the name `out` when the block ends; after an error nothing is left of it.

    Args:
        out: What does not exist yet, or an empty folder.
        size_bytes: How much will be written at least, which the disk must have room for.

    Raises:
        CheckpointError: `out` is something already, or the disk has no room or runs full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not an empty folder; name one that does not exist yet")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        free = shutil.disk_usage(partial).free
        if free < size_bytes:
            raise CheckpointError(
                f"{out} needs {size_bytes:,} bytes, and {free:,} are free on its disk; "
                "name a folder on another disk"
            )
        yield partial
        settle_tree(partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
        settle_folder(out.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise CheckpointError(
                f"{out} could not be finished, its disk is full ({error.strerror}); nothing is left of it"
            ) from error
        raise


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
