"""Where the weights of an engine come from: a loaded network, or files that are read a layer at a time."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Weights(Protocol):
    """Gives the modules of a reference network their weights while the engine makes its own of them."""

    def bring(self, module: nn.Module, *, inner: bool = True) -> None:
        """Give a module (and, if `inner`, what is in it) its weights."""

    def release(self, module: nn.Module) -> None:
        """The weights of a module, and of what is in it, are needed no more."""


class LoadedWeights:
    """The weights of a network that is loaded already.

    With `consume` its owner gave it up: each module loses its weights as soon as the engine has its own.
    """

    def __init__(self, *, consume: bool) -> None:
        self._consume = consume

    def bring(self, module: nn.Module, *, inner: bool = True) -> None:
        """Nothing to do: they are there."""

    def release(self, module: nn.Module) -> None:
        """Let go of them, if they may go."""
        if self._consume:
            for parameter in module.parameters():
                parameter.data = parameter.data.new_empty(0)
