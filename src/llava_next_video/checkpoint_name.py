"""A checkpoint's name: a folder, owner/name, or default."""

import os
from importlib import resources
from pathlib import Path

from llava_next_video.errors import CheckpointError

DEFAULT = "default"
"""The name of the package's own checkpoint."""


def default_checkpoint() -> Path:
    """The folder of the small checkpoint that comes with the package; it knows the toy world only."""
    return Path(str(resources.files("llava_next_video"))) / "checkpoint"


def folder_named(name: str | os.PathLike[str]) -> Path | None:
    """The folder of that name, or None if it can only be a name on the hub; nothing is asked of the hub.

    `default` is the package's own checkpoint, unless there is a folder of that name here.

    >>> folder_named("llava-hf/LLaVA-NeXT-Video-7B-hf") is None
    True

    Raises:
        CheckpointError: It is neither.
    """
    text = os.fspath(name)
    path = Path(text)
    if text and path.is_dir():
        return path
    if text and path.exists():
        raise CheckpointError(f"{text} is a file; give the folder of a checkpoint, or owner/name on the hub")
    if text == DEFAULT:
        return default_checkpoint()
    owner, slash, rest = text.partition("/")
    if not (owner and slash and rest) or "/" in rest or text.startswith((".", "~")):
        raise CheckpointError(f"{text!r} is no folder here; a checkpoint of the hub is named owner/name")
    return None
