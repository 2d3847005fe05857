"""What the arithmetic of a step must cost at least on this machine.

The least is measured, not read from a data sheet: a large product in the engine's own precision, and a sum
over more memory than the caches hold. Attention itself is left out, so that no share of it is flattered.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from llava_next_video.engine.decoder import Decoder
from llava_next_video.engine.linear import linear
from llava_next_video.engine.native import Kernels
from llava_next_video.engine.settings import Quantize
from llava_next_video.engine.vision import Vision
from llava_next_video.engine.words import Words

_TIMES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """A product that shows the best of a device, and memory that its caches cannot hold."""

    side: int
    memory_bytes: int


_SIZES = {
    "cpu": _Size(side=1024, memory_bytes=256 * 1024**2),
    "cuda": _Size(side=8192, memory_bytes=4 * 1024**3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the machine does at its best: multiplications (each with an addition), and bytes read."""

    multiplications_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a network asks for: multiplications by unit of work, and bytes of weights that a step reads."""

    by_frame: int
    by_token: int
    by_answer_token: int
    weight_bytes: int

    @classmethod
    def of(cls, decoder: Decoder, words: Words, vision: Vision) -> Work:
        """The work of these three."""
        patches = vision.positions.shape[0]
        seen = vision.config.video_layout(1).tokens
        tower = patches * sum(
            product.multiplications for layer in vision.layers for product in layer.products
        )
        project = vision.project_in.multiplications + vision.project_out.multiplications
        layers = [product for layer in decoder.layers for product in layer.products]
        return cls(
            by_frame=tower + seen * project,
            by_token=sum(product.multiplications for product in layers),
            by_answer_token=words.head.multiplications,
            weight_bytes=sum(product.weight_bytes for product in (*layers, words.head)),
        )

    def multiplications(self, *, frames: int, tokens: int, answer_tokens: int) -> int:
        """What a step multiplies.

        >>> Work(by_frame=7, by_token=10, by_answer_token=2, weight_bytes=0).multiplications(
        ...     frames=1, tokens=3, answer_tokens=1
        ... )
        39
        """
        return frames * self.by_frame + tokens * self.by_token + answer_tokens * self.by_answer_token

    def least_s(self, machine: Machine, *, frames: int, tokens: int, answer_tokens: int) -> float:
        """Seconds that a step takes at least: it multiplies, or it waits for its weights.

        >>> work = Work(by_frame=0, by_token=10, by_answer_token=0, weight_bytes=100)
        >>> machine = Machine(multiplications_per_s=10.0, bytes_per_s=50.0)
        >>> work.least_s(machine, frames=0, tokens=1, answer_tokens=1)
        2.0
        >>> work.least_s(machine, frames=0, tokens=5, answer_tokens=1)
        5.0
        """
        encode_s = frames * self.by_frame / machine.multiplications_per_s
        multiplications = self.multiplications(frames=0, tokens=tokens, answer_tokens=answer_tokens)
        multiply_s = multiplications / machine.multiplications_per_s
        return encode_s + max(multiply_s, self.weight_bytes / machine.bytes_per_s if tokens else 0.0)


def measured(
    dtype: torch.dtype, quantize: Quantize, device: torch.device, *, kernels: Kernels | None = None
) -> Machine:
    """The best of a few tries, on a CPU with as many threads as torch uses, and with these kernels if any."""
    size = _SIZES[device.type]
    with torch.inference_mode():
        weight = torch.randn(size.side, size.side, dtype=dtype, device=device)
        product = linear([weight], [None], quantize, kernels=kernels)
        rows = torch.randn_like(weight)
        multiply_s = _best_s(lambda: product(rows), device)
        memory = torch.ones(size.memory_bytes // 4, dtype=torch.float32, device=device)
        read_s = _best_s(memory.sum, device)
    return Machine(
        multiplications_per_s=size.side * product.multiplications / multiply_s,
        bytes_per_s=memory.nbytes / read_s,
    )


def _best_s(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(_TIMES):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
