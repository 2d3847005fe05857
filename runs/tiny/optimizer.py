"""Muon for hidden matrices, AdamW for everything else, over weights stacked by layer and seed.

Source: Muon (KellerJordan/Muon, `muon.py`), with the step scaled to AdamW's root mean square
(Moonlight, arXiv 2502.16982). Matrices of one shape share one batched Newton-Schulz iteration.
"""

import math

import torch
from torch import Tensor, nn


class MuonAdamW:
    """Two optimizers with one step over some of a module's weights."""

    def __init__(self, named: dict[str, nn.Parameter], *, muon_lr: float, weight_decay: float = 0.01) -> None:
        self.muon_lr, self.adam_lr, self.weight_decay = muon_lr, muon_lr / 4, weight_decay
        self.named = named
        self.matrices = {name: torch.zeros_like(weight) for name, weight in named.items() if _hidden(name)}
        self.others = {
            name: (torch.zeros_like(weight), torch.zeros_like(weight))
            for name, weight in named.items()
            if not _hidden(name)
        }
        device = next(iter(named.values())).device
        self.scale, self.steps = torch.ones((), device=device), torch.zeros((), device=device)

    @torch.no_grad()
    def step(self) -> None:
        """Take one step times `scale` (a tensor, which the caller fills), then forget the gradients."""
        self.steps += 1
        shapes: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor, bool]]] = {}
        for name, momentum in self.matrices.items():
            weight = self.named[name]
            if weight.grad is None:
                continue
            momentum.lerp_(weight.grad, 0.05)
            update = weight.grad.lerp(momentum, 0.95)
            tall = weight.shape[-2] > weight.shape[-1]
            update = (update.mT if tall else update).flatten(0, -3)
            shapes.setdefault(tuple(update.shape[1:]), []).append((weight, update, tall))
        kept = 1 - self.muon_lr * self.weight_decay * self.scale
        for (_, long), group in shapes.items():
            made = _orthogonal(torch.cat([update for _, update, _ in group]))
            made = made * (self.scale * (self.muon_lr * 0.2 * math.sqrt(long)))
            for (weight, _, tall), step in zip(
                group, made.split([len(update) for _, update, _ in group]), strict=True
            ):
                weight.mul_(kept).sub_((step.mT if tall else step).reshape(weight.shape))
                weight.grad = None
        for name, (mean, square) in self.others.items():
            weight = self.named[name]
            if weight.grad is None:
                continue
            mean.lerp_(weight.grad, 0.1)
            square.lerp_(weight.grad.square(), 0.02)
            root = (square / (1 - 0.98**self.steps)).sqrt() + 1e-8
            weight.sub_(mean / (1 - 0.9**self.steps) / root * (self.adam_lr * self.scale))
            weight.grad = None


def _hidden(name: str) -> bool:
    """Whether a weight is a hidden matrix of a layer or of the projector."""
    inside = "layers" in name or "projector" in name
    return inside and name.endswith("weight") and "norm" not in name


def _orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, by five rounds of a quintic Newton-Schulz iteration."""
    half = torch.bfloat16 if matrices.is_cuda else torch.float32
    found = (matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(half)
    for _ in range(5):
        gram = found @ found.mT
        found = torch.baddbmm(
            found, torch.baddbmm(gram, gram, gram, alpha=2.0315, beta=-4.775), found, beta=3.4445
        )
    return found.float()


def schedule(done: float, *, warm: float = 0.03, cool: float = 0.35) -> float:
    """Linear warm-up, constant, linear decay; `done` runs from 0 to 1.

    >>> schedule(0.5), schedule(1.0)
    (1.0, 0.0)
    """
    return min(1.0, done / warm if warm else 1.0, (1 - done) / cool)
