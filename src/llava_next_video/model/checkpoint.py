"""Which model folders are loaded, and which are refused.

A weight that the file does not have is never made up, and a pickle is never opened.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError

from llava_next_video.checkpoint_name import folder_named
from llava_next_video.errors import CheckpointError

MODEL_TYPE = "llava_next_video"
IMAGE_MODEL_TYPE = "llava_next"
"""The same network, trained on pictures alone; it is loaded, too, and looks at clips zero-shot."""
SMALL = ("*.json", "*.jinja", "*.model", "*.txt")
"""The files of a checkpoint that prompts are made with."""
WANTED = (*SMALL, "*.safetensors")
"""The files of a checkpoint that loading looks at."""


def checkpoint_folder(name: str | PathLike[str], files: Sequence[str] | None = WANTED) -> Path:
    """The folder of a checkpoint; one of the hub is fetched, or found where it was fetched to before.

    Args:
        name: Folder or hub name.
        files: Which files are fetched, as patterns; None: all.

    Raises:
        CheckpointError: The hub cannot be reached or does not have it.
    """
    folder = folder_named(name)
    if folder is not None:
        return folder
    try:
        return Path(snapshot_download(str(name), allow_patterns=None if files is None else list(files)))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name} is no folder here and was never fetched, and the hub does not answer; give a folder, or "
            f"fetch it where there is a connection: hf download {name}"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{name} is no folder here, and the hub shows you none of that name; check it, or log in with "
            "`hf auth login`"
        ) from error
    except (OSError, HFValidationError) as error:
        raise CheckpointError(f"{name} cannot be fetched: {' '.join(str(error).split())}") from error


def refuse_folder(folder: Path) -> None:
    """Raise when a local folder cannot hold a model of ours, before anything large is read.

    Raises:
        CheckpointError: no config.json, another kind of model, or no safetensors.
    """
    config = folder / "config.json"
    if not config.is_file():
        if (folder / "adapter_config.json").is_file():
            raise CheckpointError(
                f"{folder} is an adapter; merge it into its base (llava-next-video train merge), or load the "
                "base with adapter=FOLDER"
            )
        raise CheckpointError(f"{folder} has no config.json; give a folder that save_pretrained wrote")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{config} is not a JSON object: {error}") from error
    if "mm_vision_tower" in settings:
        raise CheckpointError(
            f"{folder} is in the layout of the original release; make one of the hub's with "
            "`llava-next-video convert original`"
        )
    if kind not in (MODEL_TYPE, IMAGE_MODEL_TYPE):
        raise CheckpointError(f"{config} says model_type {kind!r}; expected {MODEL_TYPE!r}")
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise CheckpointError(
            f"{folder} has its weights in pickles ({', '.join(pickles[:3])}), which can run code; "
            "convert it to safetensors where you trust it"
        )
    raise CheckpointError(f"{folder} has no *.safetensors file with weights")


def refuse_loading(
    name: str, info: Mapping[str, Any], *, allows_other_sizes: bool, spare: tuple[str, ...] = ()
) -> None:
    """Raise when weights of the model did not come from the file, or the file has weights of something else.

    Args:
        name: The folder or hub name, for the message.
        info: What transformers reports about a load.
        allows_other_sizes: The caller asked for new weights where the sizes differ.
        spare: How the names of weights start that may be left over.

    Raises:
        CheckpointError: with the names of the weights.
    """
    if info["missing_keys"]:
        raise CheckpointError(
            f"{name} lacks weights, none are made up: {_named(sorted(info['missing_keys']))}"
        )
    if info["mismatched_keys"] and not allows_other_sizes:
        sizes = [f"{key} {tuple(has)} for {tuple(wants)}" for key, has, wants in info["mismatched_keys"]]
        raise CheckpointError(f"{name} does not fit its config.json: {_named(sorted(sizes))}")
    unknown = sorted(key for key in info["unexpected_keys"] if not key.startswith(spare))
    if unknown:
        raise CheckpointError(f"{name} has weights that its config.json has no place for: {_named(unknown)}")


@contextmanager
def named_failures(name: str) -> Iterator[None]:
    """Turn what transformers and safetensors say about files into one sentence about the checkpoint.

    Their table of missing and unknown weights is left out: the sentence names them.
    """
    talker = logging.getLogger("transformers.modeling_utils")
    talker.addFilter(_is_no_report)
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{name} has a corrupt or incomplete safetensors file: {error}") from error
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{name} cannot be loaded: {' '.join(str(error).split())}") from error
    finally:
        talker.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in str(record.msg)


def _named(keys: list[str]) -> str:
    shown = ", ".join(keys[:5])
    return shown if len(keys) <= 5 else f"{shown} and {len(keys) - 5} more"
