"""Compiles the kernels once for a machine, and loads them."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from llava_next_video.disk import settle
from llava_next_video.engine.cpu import cpu_flags
from llava_next_video.engine.native.calls import Kernels
from llava_next_video.engine.settings import Quantize
from llava_next_video.errors import ConfigError

_FOLDER = Path(__file__).parent
_FLAGS = (
    *("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-fno-math-errno", "-mfma"),
    *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "bf16", "vnni")),
)
_WANTED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni", "fma"})
_LONGEST_S = 120

logger = logging.getLogger(__name__)


def chosen_kernels(
    native: bool | None, device: torch.device, dtype: torch.dtype, quantize: Quantize
) -> Kernels | None:
    """The kernels for an engine, or None if it is to do without; None for `native`: where they can be had.

    Raises:
        ConfigError: They are asked for, but cannot be had, or compute nothing for such an engine.
    """
    useful = device.type == "cpu" and (quantize == "int8" or dtype is torch.bfloat16)
    if native and not useful:
        raise ConfigError(
            "native kernels compute in bfloat16 and 8 bits on a CPU; "
            f"this engine has dtype {str(dtype).removeprefix('torch.')} on {device}"
        )
    if native is False or not useful:
        return None
    kernels, reason = found_kernels()
    if native and kernels is None:
        raise ConfigError(f"there are no native kernels, as {reason}; leave native out")
    return kernels


@cache
def found_kernels() -> tuple[Kernels | None, str]:
    """The kernels, or None and why they cannot be had."""
    missing = _WANTED - cpu_flags()
    if missing:
        return None, f"the processor lacks {', '.join(sorted(missing))}"
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if compiler is None:
        return None, "there is no C++ compiler: install g++, or name one in CXX"
    try:
        return Kernels(ctypes.CDLL(str(_compiled(compiler, _cache_folder())))), ""
    except subprocess.CalledProcessError as error:
        reason = f"{compiler} failed: {error.stderr.strip().splitlines()[:1]}"
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:  # RuntimeError: there is no home
        reason = f"{type(error).__name__}: {error}"
    logger.warning("the engine computes without its C++ kernels, as %s", reason)
    return None, reason


def _cache_folder() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "llava-next-video"


def _compiled(compiler: str, folder: Path) -> Path:
    """The library for these sources, compiler and torch, made if it is not there yet.

    It is linked without an OpenMP runtime of its own: torch has loaded one, whose threads it shares.
    """
    sources = sorted(path for path in _FOLDER.iterdir() if path.suffix in (".cpp", ".hpp"))
    parts = [*(path.read_text() for path in sources), compiler, *_FLAGS, torch.__version__]
    library = folder / f"kernels-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        object_file, fresh = Path(made) / "kernels.o", Path(made) / "kernels.so"
        for command in (
            [*shlex.split(compiler), *_FLAGS, "-c", str(_FOLDER / "kernels.cpp"), "-o", str(object_file)],
            [*shlex.split(compiler), "-shared", str(object_file), "-o", str(fresh)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LONGEST_S)
        with fresh.open("rb") as file:
            settle(file.fileno())
        fresh.replace(library)  # at once: another process may be making the same
    return library
