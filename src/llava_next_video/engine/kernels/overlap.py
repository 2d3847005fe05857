"""Kernels that begin while the one before them still ends.

A Hopper GPU can start the programs of the next kernel as soon as all programs of this one run. They may read
what no kernel of the step writes (weights, the table of the step, keys and values of steps before) at once,
and must `wait` before anything else. As every kernel of a step waits, what it waits for includes all kernels
before. The first one of a step, the embedding, is torch's and does not overlap: so steps do not either.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import no_type_check

import torch

from llava_next_video.engine.kernels import tl, triton

CAPABILITY = (9, 0)
"""Of the first GPUs that can."""
ALLOWED = True
"""Since `benchmarks/gpu.py kernels` has found the numbers of kernels in turn, bit for bit, in 50 replays of a
step of one and of eight requests of a random 7B on an H200 (docs/log.md)."""


@cache
def overlapped(device: torch.device) -> Mapping[str, bool]:
    """What a kernel of a step is launched with on a device."""
    able = ALLOWED and device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
    return {"OVERLAPPED": True, "launch_pdl": True} if able else {"OVERLAPPED": False}


@triton.jit
@no_type_check
def let_next_begin(OVERLAPPED: tl.constexpr):
    """Let the next kernel begin; comes first."""
    if OVERLAPPED:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
@no_type_check
def wait(OVERLAPPED: tl.constexpr):
    """Wait for the kernels before; comes before all reads of what they wrote, and before all writes."""
    if OVERLAPPED:
        tl.extra.cuda.gdc_wait()
