"""What to paste into a bug report."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "av",
    "pillow",
    "numpy",
    "accelerate",
    "peft",
    "bitsandbytes",
    "torchao",
    "flash-attn",
    "pyarrow",
    "triton",
    "ray",
)


def env() -> None:
    """Print the versions and devices that a bug report needs."""
    import torch

    from llava_next_video import __version__

    rows = [
        ("llava-next-video", __version__),
        ("python", platform.python_version()),
        ("platform", platform.platform()),
        ("processor", _processor()),
        ("torch threads", str(torch.get_num_threads())),
        ("cpu capability", torch.backends.cpu.get_cpu_capability()),
        ("cuda", _cuda()),
        *((name, _installed(name)) for name in PACKAGES),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no device"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
