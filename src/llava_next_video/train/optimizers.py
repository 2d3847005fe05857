"""Muon for hidden matrices, AdamW for the rest, float32 masters under bfloat16 weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# The quintic that drives singular values towards one in five rounds.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class MasterOptimizer(Optimizer):
    """One optimizer for all groups: those with `matrices` by Muon, the others by AdamW.

    A parameter that is stored in fewer bits than float32 has a float32 master in the state, which is what the
    small updates are added to; the parameter is its rounded copy.

    Source: Muon, https://kellerjordan.github.io/posts/muon/ ; the scale that makes its updates as large as
    AdamW's: "Muon is Scalable for LLM Training" (Moonlight), 0.2 * sqrt(the longer side).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        momentum: float = 0.95,
        epsilon: float = 1e-8,
    ) -> None:
        defaults = {"betas": betas, "momentum": momentum, "eps": epsilon, "weight_decay": 0.0}
        super().__init__(list(groups), {"lr": 1e-3, "matrices": False, **defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["matrices"]:
                self._step_matrices(learning, group)
            else:
                for parameter in learning:
                    self._step_adam(parameter, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state, in the precision it was saved in.

        The base class would round float32 masters and moments to the parameter's type.
        """
        super().load_state_dict(state_dict)
        order = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, saved in state_dict["state"].items():
            parameter = order[index]
            for key, value in saved.items():
                if isinstance(value, Tensor):
                    self.state[parameter][key] = value.to(parameter.device, copy=True)

    def _master(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if parameter.dtype == torch.float32:
            return parameter
        if "master" not in state:
            state["master"] = parameter.detach().float().clone()
        master = state["master"]
        assert isinstance(master, Tensor)
        return master

    def _step_adam(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, master = self.state[parameter], self._master(parameter)
        gradient = parameter.grad.float()  # type: ignore[union-attr]
        if "step" not in state:
            state |= {"step": 0, "mean": torch.zeros_like(master), "square": torch.zeros_like(master)}
        state["step"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        square = state["square"].lerp_(gradient * gradient, 1 - second) / (1 - second ** state["step"])
        master.mul_(1 - group["lr"] * group["weight_decay"])
        master.addcdiv_(mean, square.sqrt_().add_(group["eps"]), value=-group["lr"])
        if master is not parameter:
            parameter.copy_(master)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape are orthogonalised together: one batched product instead of many."""
        shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            state = self.state[parameter]
            gradient = parameter.grad.float()  # type: ignore[union-attr]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradient)
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(state["momentum"], group["momentum"])
            upright = update.mT if update.shape[0] > update.shape[1] else update
            shapes.setdefault((upright.shape[0], upright.shape[1]), []).append((parameter, upright))
        for (_, longer), members in shapes.items():
            directions = orthogonal(torch.stack([upright for _, upright in members]))
            scale = 0.2 * longer**0.5
            for (parameter, _), direction in zip(members, directions, strict=True):
                master = self._master(parameter)
                master.mul_(1 - group["lr"] * group["weight_decay"])
                turned = direction.mT if parameter.shape[0] > parameter.shape[1] else direction
                master.add_(turned, alpha=-group["lr"] * scale)
                if master is not parameter:
                    parameter.copy_(master)


def orthogonal(matrices: Tensor) -> Tensor:
    """The matrices with all singular values near one (between 0.7 and 1.2), by five Newton-Schulz rounds."""
    first, third, fifth = NEWTON_SCHULZ
    result = matrices.bfloat16() if matrices.is_cuda else matrices
    result = result / (result.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = result @ result.mT
        result = first * result + (third * square + fifth * square @ square) @ result
    return result.float()
