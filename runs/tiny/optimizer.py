"""Muon for hidden matrices, AdamW for everything else.

Source: Muon (KellerJordan/Muon, `muon.py`), with the step scaled to AdamW's root mean square
(Moonlight, arXiv 2502.16982). Matrices of one shape share one batched Newton-Schulz iteration.
"""

import math

import torch
from torch import Tensor, nn


class MuonAdamW:
    """Two optimizers with one step; `scale` follows the schedule."""

    def __init__(
        self,
        module: nn.Module,
        *,
        muon_lr: float,
        adam_lr: float,
        slow: tuple[str, ...] = (),
        slowness: float = 1.0,
        weight_decay: float = 0.01,
    ) -> None:
        """Weights with one of `slow` in their names move `slowness` times as far as the others."""
        self.muon_lr, self.adam_lr, self.weight_decay, self.steps = muon_lr, adam_lr, weight_decay, 0
        self.pace = {
            weight: slowness if any(part in name for part in slow) else 1.0
            for name, weight in module.named_parameters()
        }
        self.matrices: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
        self.others: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        for name, weight in module.named_parameters():
            if not weight.requires_grad:
                continue
            if weight.ndim == 2 and "embed" not in name and "lm_head" not in name and "head" not in name:
                shape = (min(weight.shape), max(weight.shape))
                self.matrices.setdefault(shape, []).append((weight, torch.zeros_like(weight)))
            else:
                self.others.append((weight, torch.zeros_like(weight), torch.zeros_like(weight)))

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Take one step, then forget the gradients."""
        self.steps += 1
        for (_, long), group in self.matrices.items():
            group_with = [(weight, momentum) for weight, momentum in group if weight.grad is not None]
            if not group_with:
                continue
            size = self.muon_lr * scale * 0.2 * math.sqrt(long)
            for weight, momentum in group_with:
                momentum.lerp_(weight.grad, 0.05)
                update = weight.grad.lerp(momentum, 0.95)
                tall = weight.shape[0] > weight.shape[1]
                update = _orthogonal(update.T.contiguous() if tall else update)
                pace = self.pace[weight]
                weight.mul_(1 - self.muon_lr * scale * pace * self.weight_decay)
                weight.add_(update.T if tall else update, alpha=-size * pace)
                weight.grad = None
        for weight, mean, square in self.others:
            if weight.grad is None:
                continue
            mean.lerp_(weight.grad, 0.1)
            square.lerp_(weight.grad.square(), 0.02)
            root = (square / (1 - 0.98**self.steps)).sqrt() + 1e-8
            weight.addcdiv_(
                mean / (1 - 0.9**self.steps), root, value=-self.adam_lr * scale * self.pace[weight]
            )
            weight.grad = None


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, by five rounds of a quintic Newton-Schulz iteration."""
    found = matrix / (matrix.norm() + 1e-7)
    for _ in range(5):
        gram = found @ found.T
        found = torch.addmm(
            found, torch.addmm(gram, gram, gram, alpha=2.0315, beta=-4.775), found, beta=3.4445
        )
    return found


def schedule(done: float, *, warm: float = 0.03, cool: float = 0.35) -> float:
    """Linear warm-up, constant, linear decay; `done` runs from 0 to 1.

    >>> schedule(0.5), schedule(1.0)
    (1.0, 0.0)
    """
    return min(1.0, done / warm if warm else 1.0, (1 - done) / cool)
