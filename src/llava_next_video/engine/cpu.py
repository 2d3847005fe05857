"""What this machine's processor can do; what is computed with it is decided elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_LISTS = ("flags", "Features")  # as Linux heads them on x86 and on Arm
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # instructions that multiply in it


@cache
def cpu_flags() -> frozenset[str]:
    """What the processor can do, in Linux's words; nothing where there is no such list."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    heads_and_rests = (line.partition(":") for line in lines)
    return next(
        (frozenset(rest.split()) for head, _, rest in heads_and_rests if head.strip() in _LISTS), frozenset()
    )


def multiplies_bfloat16() -> bool:
    """Whether it has instructions that multiply in bfloat16."""
    return bool(_BFLOAT16 & cpu_flags())
