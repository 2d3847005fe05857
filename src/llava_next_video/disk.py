"""Files and folders that appear whole and stay after a power cut."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from llava_next_video.errors import ConfigError

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}


def put_if_absent(content: Path, target: Path) -> bool:
    """Give the file `content` a second name, unless something has that name already; says whether it did.

    Of many who try at once, on any machine that sees the file system, one wins: POSIX and NFS make links
    atomically. A server whose answer was lost refuses the second try, so equal files mean that we won.

    Raises:
        ConfigError: The file system has no hard links.
    """
    try:
        os.link(content, target)
    except FileExistsError:
        return os.path.samefile(content, target)
    except OSError as error:
        if error.errno in NO_LINKS:
            raise ConfigError(
                f"{target.parent}: this file system has no hard links ({error.strerror}), which keep a "
                "thing from being written twice; write to another one"
            ) from error
        raise
    return True


def write_whole(path: Path, text: str, replace: bool = True) -> bool:
    """Write a file that appears complete, on disk, or not at all; without `replace` the first one stays."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            settle(file.fileno())
        if replace:
            os.replace(partial, path)
        elif not put_if_absent(partial, path):
            return False
        settle_folder(path.parent)
        return True
    finally:
        partial.unlink(missing_ok=True)


def settle(descriptor: int) -> None:
    """Wait until the disk has what was written."""
    os.fsync(descriptor)


def settle_folder(folder: Path) -> None:
    """Wait until the disk has the folder's names; some systems cannot open folders, and need not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def share_tree(folder: Path) -> None:
    """Let those read all files of a folder who may read it: safetensors writes for the owner alone."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(folder.stat().st_mode & 0o666)


def settle_tree(folder: Path) -> None:
    """Wait until the disk has all files of a folder, and their names."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                settle(file.fileno())
        elif path.is_dir():
            settle_folder(path)
    settle_folder(folder)
