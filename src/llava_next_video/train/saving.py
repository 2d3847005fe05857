"""Checkpoints that are whole or not there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from llava_next_video.disk import settle_folder, settle_tree, share_tree
from llava_next_video.errors import CapacityError

CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def write_whole(
    folder: Path,
    write: Callable[[Path], None],
    *,
    leads: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Let `write` fill a folder beside `folder`, then put it in its place.

    Whatever happens meanwhile, `folder` is what it was or what it should be: the files are on the disk before
    the folder gets its name. Where several processes write, one `leads` and all `wait` for each other.

    Raises:
        CapacityError: The files could not be written (a full disk, say); nothing is left of the attempt.
    """
    partial = folder.with_name(f"partial-{folder.name}")
    try:
        if leads:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        wait()
        write(partial)
        wait()
        if leads:
            share_tree(partial)
            settle_tree(partial)
            put_in_place(partial, folder)
        wait()
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CapacityError(_full(folder, error)) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def put_in_place(partial: Path, folder: Path) -> None:
    """Give a finished folder its name; one that had the name before goes."""
    if folder.exists():
        old = folder.with_name(f"old-{folder.name}")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
    else:
        partial.rename(folder)
    settle_folder(folder.parent)


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not output.is_dir():
        return []
    found = [path for path in output.iterdir() if CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step at which a checkpoint was saved.

    >>> step_of(Path("out/checkpoint-200"))
    200
    """
    return int(checkpoint.name.rpartition("-")[2])


def forget_old(output: Path, keep: int | None) -> None:
    """Delete all but the newest `keep` checkpoints."""
    if keep is not None:
        for path in checkpoints(output)[: -max(keep, 1)]:
            shutil.rmtree(path)


def clear_attempts(output: Path) -> None:
    """Delete what interrupted saves left behind."""
    if output.is_dir():
        for path in output.iterdir():
            if path.name.startswith(("partial-checkpoint-", "old-checkpoint-", "partial-final", "old-final")):
                shutil.rmtree(path)


def _full(folder: Path, error: Exception) -> str:
    last = checkpoints(folder.parent)
    kept = f"{last[-1].name} is whole" if last else "no earlier checkpoint is there"
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return f"{folder}: cannot be saved ({reason}); {kept}; make room and run the same command to go on"
