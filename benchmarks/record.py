"""Write down what was measured, on what machine, at which commit."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("torch", "transformers", "av", "numpy", "pillow")


def record(name: str, figures: Mapping[str, object], folder: Path = _FOLDER) -> Path:
    """Write `<date>_<machine>_<commit>_<name>.json` with the figures and the machine; return its path.

    The machine is its processor and cores (and accelerator): no host name, user or path goes in.
    """
    machine = describe_machine()
    commit = _commit()
    slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['processor']} {machine['cores']}c".lower()).strip("-")
    path = folder / f"{datetime.date.today().isoformat()}_{slug}_{commit}_{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "commit": commit, "machine": machine, "figures": dict(figures)}
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return path


def describe_machine() -> dict[str, object]:
    """Processor, cores, memory, accelerator, and the versions that figures depend on."""
    versions = {package: _version(package) for package in _PACKAGES}
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "accelerator": _accelerator(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return named.get("model name") or platform.machine()


def _memory_gib() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _accelerator() -> str | None:
    import torch  # here, so that benchmarks which need no torch do not measure its import

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _commit() -> str:
    """Short commit, with a plus if tracked files differ from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    head = git("rev-parse", "--short", "HEAD") or "nocommit"
    return f"{head}+" if git("status", "--porcelain", "--untracked-files=no") else head
