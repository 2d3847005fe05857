"""Everything that a score depends on, frozen beside it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path

import llava_next_video
from llava_next_video.assistant import VideoAssistant
from llava_next_video.assistant.reference import Network, ReferenceNetwork
from llava_next_video.engine import Engine
from llava_next_video.errors import ConfigError
from llava_next_video.media import Sampling
from llava_next_video.model.quantised import quantised_with

Manifest = Mapping[str, object]
"""Plain JSON values by name; what is equal gives equal answers."""

LIBRARIES = ("torch", "transformers", "tokenizers", "av", "pillow", "numpy")
WEIGHTS = (".safetensors", ".json", ".jinja", ".model", ".txt")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path, endings: Sequence[str] = WEIGHTS) -> str:
    """SHA-256 of a folder's files with these endings, their names and contents; several are read at once."""
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name.endswith(tuple(endings))
    )
    with ThreadPoolExecutor(8, thread_name_prefix="hash") as pool:
        hashes = pool.map(file_hash, paths)
        told = [[path.relative_to(folder).as_posix(), one] for path, one in zip(paths, hashes, strict=True)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def words_hash(words: Iterable[str]) -> str:
    """SHA-256 of texts in order."""
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()


def of_files(paths: Sequence[Path]) -> list[Manifest]:
    """The files of a benchmark: names and contents."""
    return [{"name": path.name, "sha256": file_hash(path)} for path in paths]


def of_model(
    assistant: VideoAssistant, name: str, folder: Path, *, rope_factor: float | None = None
) -> Manifest:
    """The checkpoint, how it is computed here, and how it pools the frames of a clip.

    Args:
        name: As the user gave it.
        folder: The checkpoint's files.
        rope_factor: As it was loaded with, if with any.
    """
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    told = ("spatial_pool_mode", "spatial_pool_stride", "video_newline", "video_newline_mode")
    return {
        "name": Path(name).name if Path(name).is_dir() else name,
        "sha256": folder_hash(folder),
        **_computed(assistant.network),
        "rope_factor": rope_factor,
        "pool": {key: settings[key] for key in told if key in settings},
    }


def _computed(network: Network) -> Manifest:
    """By what the answers are computed, and in which numbers; `auto` differs from machine to machine."""
    quantize: object
    match network:
        case Engine():
            numbers, quantize = network.words.embedding, network.settings.quantize
            kind = "engine"
        case ReferenceNetwork():
            numbers = network.model.get_input_embeddings().weight
            kind, quantize = "reference", quantised_with(network.model) or "none"
        case _:
            raise TypeError(f"a network of an unknown kind, {type(network).__name__}")
    dtype = str(numbers.dtype).removeprefix("torch.")
    return {"network": kind, "device": numbers.device.type, "dtype": dtype, "quantize": quantize}


def of_sampling(sampling: Sampling) -> Manifest:
    """Which moments of a clip are looked at."""
    return {key: value for key, value in asdict(sampling).items() if value is not None}


@cache
def of_code() -> Manifest:
    """This package, by version and content, and the libraries under it; read once a process."""
    package = Path(llava_next_video.__file__).parent
    return {
        "llava-next-video": f"{llava_next_video.__version__}+{folder_hash(package, ('.py',))[:12]}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def refuse_change(before: Manifest, now: Manifest, place: Path, *, option: str = "--output") -> None:
    """Raise where answers from before, in a place that `option` names, would be mixed with others.

    Raises:
        ConfigError: What changed, from what to what.
    """
    changed = list(_changes(before, json.loads(json.dumps(now))))
    if changed:
        raise ConfigError(
            f"{place} was begun with another manifest ({'; '.join(changed)}); go on as it was begun, or give "
            f"another {option}"
        )


def lines(manifest: Manifest, indent: str = "") -> Iterator[str]:
    """The manifest as people read it."""
    for key, value in manifest.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from lines(value, f"{indent}  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for one in value:
                yield f"{indent}{key}: " + ", ".join(f"{name} {what}" for name, what in one.items())
        else:
            plain = isinstance(value, str) and "\n" not in value
            yield f"{indent}{key}: {value if plain else json.dumps(value, ensure_ascii=False)}"


def _changes(before: object, now: object, place: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from _changes(before.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif before != now:
        yield f"{place}: {_short(before)}, now {_short(now)}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
