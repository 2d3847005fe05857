"""An adapter and its base to one checkpoint folder, a file of weights at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.checkpoint import checkpoint_folder, named_failures, refuse_folder
from llava_next_video.model.fingerprint import fingerprint
from llava_next_video.model.layouts import in_memory, on_hub
from llava_next_video.train.saving import write_whole

BASE = "base.json"
"""Beside an adapter that was trained here: the model it is for, and the fingerprint of its weights."""

INDEX = "model.safetensors.index.json"
_BESIDE = (".json", ".jinja", ".txt", ".model")


def merge_adapter(adapter: Path, output: Path, *, base: str | None = None) -> Path:
    """Write a folder in the hub's layout whose weights are those of the base, changed by the adapter.

    Config, tokenizer and processor files are the base's; number formats stay. At most one file of weights is
    in memory.

    Args:
        adapter: A folder that PEFT or `train` saved.
        output: A folder that does not exist yet.
        base: Checkpoint folder or hub name; None is what the adapter names.

    Raises:
        CheckpointError: The adapter is for another model, or one of both cannot be read.
        ConfigError: No base is known, or `output` exists.
        CapacityError: The files could not be written.
    """
    if output.exists():
        raise ConfigError(f"{output} exists already; name a folder that does not")
    change = Adapter.read(adapter)
    name = base or _named_base(adapter)
    folder = checkpoint_folder(name)
    refuse_folder(folder)
    _refuse_base(change, folder, name)

    def write(partial: Path) -> None:
        for path in folder.iterdir():
            if path.is_file() and path.suffix in _BESIDE and path.name != INDEX:
                shutil.copyfile(path, partial / path.name)
        places: dict[str, str] = {}
        for path in sorted(folder.glob("*.safetensors")):
            weights = _changed(path, change)
            save_file(weights, partial / path.name, {"format": "pt"})
            places |= dict.fromkeys(weights, path.name)
        if len(set(places.values())) > 1:
            index = {"metadata": {}, "weight_map": dict(sorted(places.items()))}
            (partial / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, write)
    return output


def write_base(folder: Path, model: str) -> None:
    """Note beside an adapter which weights it is for; those of a hub name are known by their name only."""
    path = Path(model)
    told = {"model": model, "fingerprint": fingerprint(path) if path.is_dir() else None}
    (folder / BASE).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _changed(path: Path, adapter: Adapter) -> dict[str, Tensor]:
    """The weights of a file under the hub's names, as the adapter changes them."""
    weights = {}
    with named_failures(str(path.parent)), safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (a file is no mapping)
            name, weight = in_memory(key), file.get_tensor(key)
            weights[on_hub(name)] = adapter.applied(name, weight).to(weight.dtype).contiguous()
    return weights


def _named_base(adapter: Path) -> str:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    name = config.get("base_model_name_or_path")
    if not name:
        raise ConfigError(f"{adapter} does not say which model it is for; name it with --model")
    return str(name)


def _refuse_base(adapter: Adapter, folder: Path, name: str) -> None:
    """Raise unless the adapter is for these weights, as far as names, shapes and its own notes tell.

    Raises:
        CheckpointError: With what differs.
    """
    if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config"):
        raise CheckpointError(
            f"{name} is quantised, which an adapter cannot be merged into; name the original with --model"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    with named_failures(name):
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                shapes |= {in_memory(key): tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    adapter.refuse_shapes(shapes)
    note = adapter.folder / BASE
    if note.is_file():
        told = json.loads(note.read_text(encoding="utf-8"))
        if told["fingerprint"] not in (None, fingerprint(folder)):
            raise CheckpointError(
                f"{adapter.folder} was trained on {told['model']}, and {name} has other weights; name its "
                "base with --model"
            )
