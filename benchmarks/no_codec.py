"""Stands in for PyAV on a machine without it, for benchmarks that read no files."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Named(type):
    """Makes classes that have every class in them."""

    def __getattr__(cls, name: str) -> type:
        return _class(name)


def _class(name: str) -> type:
    """A class of that name, which cannot do anything."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _Named(name, (Exception,) if name.endswith("Error") else (), {})


class _Hollow(ModuleType):
    """A module that has every class in it."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> type:
        return _class(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.split(".")[0] == "av" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Hollow(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


def allow_no_codec() -> None:
    """Let `import av` succeed where PyAV is not installed; frames must come from elsewhere."""
    if importlib.util.find_spec("av") is None:
        sys.meta_path.append(_Finder())
