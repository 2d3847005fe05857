"""A LoRA adapter that is added to the weights when they are read.

Reads what PEFT saved, without PEFT: the low-rank products of matrices, and the modules that learned whole.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from llava_next_video.errors import CheckpointError
from llava_next_video.model.checkpoint import named_failures
from llava_next_video.model.layouts import in_memory

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """What is added to a matrix: `scale * up @ down`."""

    down: Float[Tensor, "rank width"]
    up: Float[Tensor, "out rank"]
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Additions and replacements, by the name of the weight in memory."""

    folder: Path
    added: dict[str, LowRank]
    replaced: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """An adapter that PEFT's `save_pretrained` wrote.

        Raises:
            CheckpointError: the folder holds no adapter, only a pickled one, or one that is not plain LoRA.
        """
        path = folder / "adapter_model.safetensors"
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is no folder here; give a folder that PEFT saved")
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(
                f"{folder} has no adapter_config.json; give a folder that PEFT saved"
            ) from error
        except ValueError as error:
            raise CheckpointError(f"{folder / 'adapter_config.json'} is not JSON: {error}") from error
        if not path.is_file():
            raise CheckpointError(f"{folder} has no adapter_model.safetensors; a pickle is not opened")
        _refuse_config(folder, config)
        with named_failures(str(folder)):
            tensors = load_file(path)
        return cls(folder=folder, **_sorted_out(folder, config, tensors))

    def refuse(self, names: Container[str]) -> None:
        """Raise when it changes weights that a model does not have.

        Raises:
            CheckpointError: with the names.
        """
        strange = sorted(name for name in (*self.added, *self.replaced) if name not in names)
        if strange:
            raise CheckpointError(
                f"{self.folder} is for another model: it changes {', '.join(strange[:3])}, which is not here"
            )

    def refuse_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise when it changes weights that a model does not have, or has in another size.

        Raises:
            CheckpointError: with the names, or both shapes.
        """
        self.refuse(shapes)
        for name in (*self.added, *self.replaced):
            self._refuse_shape(name, shapes[name])

    def _refuse_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if name in self.replaced:
            found = tuple(self.replaced[name].shape)
        else:
            found = (len(self.added[name].up), self.added[name].down.shape[1])
        if found != shape:
            raise CheckpointError(
                f"{self.folder} is for another model: {name} has shape {shape}, not {found}"
            )

    def applied(self, name: str, weight: Tensor) -> Tensor:
        """A weight as the adapter changes it, in float32 if it does."""
        if name in self.replaced:
            self._refuse_shape(name, tuple(weight.shape))
            return self.replaced[name]
        if name not in self.added:
            return weight
        self._refuse_shape(name, tuple(weight.shape))
        low = self.added[name]
        return torch.addmm(weight.float(), low.up.float(), low.down.float(), alpha=low.scale)

    def merge_into(self, model: nn.Module) -> None:
        """Change the weights of a loaded model for good."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.refuse(parameters)
        with torch.no_grad():
            for name in (*self.added, *self.replaced):
                parameters[name].copy_(self.applied(name, parameters[name]))


def _refuse_config(folder: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder} is a {config.get('peft_type')} adapter; only LORA can be merged")
    for name in (
        "use_dora",
        "alpha_pattern",
        "lora_bias",
        "layer_replication",
        "fan_in_fan_out",
        "use_qalora",
    ):
        if config.get(name):
            raise CheckpointError(
                f"{folder} has {name} {config[name]!r}, which is not plain LoRA; merge it with PEFT's "
                "merge_and_unload and load the result"
            )


def _sorted_out(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Additions and replacements among the tensors of the file."""
    added: dict[str, LowRank] = {}
    replaced: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = in_memory(key.removeprefix(_PREFIX))
        if name.endswith(_DOWN):
            up = tensors.get(key.removesuffix(_DOWN) + _UP)
            if up is None:
                raise CheckpointError(f"{folder} has {key} without its lora_B")
            rank = len(tensor)
            scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
            added[name.removesuffix(_DOWN) + ".weight"] = LowRank(down=tensor, up=up, scale=scale)
        elif not name.endswith(_UP):
            replaced[name] = tensor
    return {"added": added, "replaced": replaced}
