"""Weights of a checkpoint folder, read one module at a time.

For whoever builds another network from them: nothing is kept, so there is never a second copy in memory.
"""

from __future__ import annotations

import ctypes
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig

from llava_next_video.errors import CheckpointError
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.checkpoint import named_failures, refuse_folder, refuse_loading
from llava_next_video.model.configuration import LlavaNextVideoConfig
from llava_next_video.model.generation import LlavaNextVideoForConditionalGeneration
from llava_next_video.model.layouts import RECOMPUTED, in_memory


class FolderWeights:
    """A network without weights (`model`), whose modules can be given theirs and robbed of them again."""

    def __init__(self, folder: Path, config: LlavaNextVideoConfig, adapter: Adapter | None = None) -> None:
        """Look into the files of a folder that `save_pretrained` or the hub wrote.

        Raises:
            CheckpointError: weights are missing, of the wrong size or unknown (they are named), a file is
                corrupt, there are only pickles, or the adapter is for another model.
        """
        refuse_folder(folder)
        self._adapter = adapter
        self._name = str(folder)
        self.model = skeleton(config)
        if (folder / "generation_config.json").is_file():
            self.model.generation_config = GenerationConfig.from_pretrained(folder)
        self._prefix = {module: name for name, module in self.model.named_modules()}
        wanted = {name: tuple(tensor.shape) for name, tensor in self._parameters()}
        with named_failures(self._name):
            self._files, found = _contents(sorted(folder.glob("*.safetensors")))
        self._same = {
            name: source
            for name, source in self.model.all_tied_weights_keys.items()
            if name in wanted and source in found
        }
        refuse_loading(
            self._name,
            {
                "missing_keys": [name for name in wanted if name not in found and name not in self._same],
                "mismatched_keys": [
                    (name, found[name], shape)
                    for name, shape in wanted.items()
                    if name in found and found[name] != shape
                ],
                "unexpected_keys": [
                    name for name in found if name not in wanted and not RECOMPUTED.search(name)
                ],
            },
            allows_other_sizes=False,
        )
        if adapter is not None:
            adapter.refuse(wanted)

    def bring(self, module: nn.Module, *, inner: bool = True) -> None:
        """Give a module of the network (and, if `inner`, what is in it) its weights."""
        prefix = self._prefix[module]
        names = [
            (local, f"{prefix}.{local}" if prefix else local)
            for local, _ in module.named_parameters(recurse=inner, remove_duplicate=False)
        ]
        with named_failures(self._name):
            read = self._read({name for _, name in names})
        for local, name in names:
            owner, _, leaf = local.rpartition(".")
            setattr(module.get_submodule(owner), leaf, nn.Parameter(read[name], requires_grad=False))

    def release(self, module: nn.Module) -> None:
        """Take a module its weights."""
        module.to("meta")
        _give_back()

    def _parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        return self.model.named_parameters(remove_duplicate=False)

    def _read(self, names: set[str]) -> dict[str, Tensor]:
        """Copies of tensors by name: what looks into a mapped file keeps all of it in memory."""
        wanted: dict[Path, list[str]] = defaultdict(list)
        for name in names:
            wanted[self._files[self._same.get(name, name)][0]].append(name)
        read = {}
        for path, here in wanted.items():
            with safe_open(path, framework="pt") as file:
                for name in here:
                    read[name] = file.get_tensor(self._files[self._same.get(name, name)][1]).clone()
        if self._adapter is None:
            return read
        return {name: self._adapter.applied(name, tensor) for name, tensor in read.items()}


def _give_back() -> None:
    """Let the C library return freed memory to the system.

    glibc keeps the holes that released weights leave between those made from them: a quantised network then
    took twice the memory of its file while it was built.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def skeleton(config: LlavaNextVideoConfig) -> LlavaNextVideoForConditionalGeneration:
    """The reference network without weights; only its rope is computed."""
    with torch.device("meta"):
        model = LlavaNextVideoForConditionalGeneration(config)
    text: Any = model.model.language_model
    text.rotary_emb = type(text.rotary_emb)(text.config)
    return model.eval()


def _contents(paths: Iterable[Path]) -> tuple[dict[str, tuple[Path, str]], dict[str, tuple[int, ...]]]:
    """For each name in memory its file, its name there, and its shape."""
    files: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (a file is no mapping)
                name = in_memory(key)
                if name in files:
                    raise CheckpointError(
                        f"{path.parent} has {name} twice: {files[name][0].name}, {path.name}"
                    )
                files[name] = (path, key)
                shapes[name] = tuple(file.get_slice(key).get_shape())
    return files, shapes
