"""Which samples of which files, and how often each."""

from __future__ import annotations

import importlib
import os
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from llava_next_video.data.files import read_each
from llava_next_video.data.record import Record, Sample, apart
from llava_next_video.errors import ConfigError, DataError

Which = Literal["all", "first", "end", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Which samples of a file: all, or a number or share from its start, its end, or at random."""

    which: Which = "all"
    amount: float = 0.0
    percent: bool = False

    def indices(self, count: int, seed: int) -> list[int]:
        """The samples taken of `count`, in order of the file.

        >>> read_take("first:2").indices(5, seed=0), read_take("end:40%").indices(5, seed=0)
        ([0, 1], [3, 4])
        """
        if self.which == "all":
            return list(range(count))
        wanted = min(count, round(count * self.amount / 100) if self.percent else int(self.amount))
        if self.which == "first":
            return list(range(wanted))
        if self.which == "end":
            return list(range(count - wanted, count))
        return sorted(random.Random(seed).sample(range(count), wanted))


def read_take(text: str) -> Take:
    """What `all`, `first:1000`, `end:10%` or `random:50%` means.

    Raises:
        ConfigError: Anything else.

    Source: LLaVA-NeXT, `llava/train/train.py`, `sampling_strategy`.
    """
    if text == "all":
        return Take()
    match = re.fullmatch(r"(first|end|random):(\d+(?:\.\d+)?)(%?)", text)
    if match is None or (not match[3] and "." in match[2]) or (match[3] and float(match[2]) > 100):
        raise ConfigError(
            f"cannot take {text!r} of a file; expected all, first:N, end:N or random:N, or N% instead of N"
        )
    return Take(which=cast(Which, match[1]), amount=float(match[2]), percent=bool(match[3]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file in a mixture.

    Attributes:
        path: As `files.read_samples` reads it; `{a,b}` in it stands for several files.
        root: What its media paths are relative to; None for the file's own folder.
        take: Which of its samples.
        weight: How often each of them is seen in an epoch: 2 twice, 0.5 every other one.
        apart: Make each question of a conversation a sample of its own: right where none leans on another.
    """

    path: str
    root: str | None = None
    take: Take = Take()
    weight: float = 1.0
    apart: bool = False


def read_mixture(path: str | os.PathLike[str]) -> tuple[Source, ...]:
    """The sources of a mixture file: TOML with `[[sources]]`, or the original's YAML with `datasets`.

    Raises:
        ConfigError: A file that is neither, or a source with a key or value that is not known.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; give a mixture as TOML or YAML") from error
    if file.suffix in (".yaml", ".yml"):
        yaml = importlib.import_module("yaml")

        try:
            loaded = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
        entries = loaded.get("datasets") if isinstance(loaded, dict) else None
    else:
        try:
            entries = tomllib.loads(text).get("sources")
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{file}: not TOML: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{file}: no list of files; expected [[sources]] (TOML) or datasets: (YAML)")
    return tuple(read_source(entry, file.parent) for entry in entries)


def read_source(entry: object, folder: Path) -> Source:
    """A source from its table, or from a bare path; relative paths start in `folder`.

    Raises:
        ConfigError: A key or value that is not known.
    """
    if isinstance(entry, str):
        return Source(path=_under(folder, entry))
    if not isinstance(entry, Mapping):
        raise ConfigError(f"a source is {type(entry).__name__}; expected a path or a table with 'path'")
    usual = {"json_path": "path", "sampling_strategy": "take"}
    given: dict[str, object] = {usual.get(str(key), str(key)): value for key, value in entry.items()}
    unknown = sorted(set(given) - {"path", "root", "take", "weight", "apart"})
    path = given.get("path")
    if unknown or not isinstance(path, str):
        found = f"unknown {unknown[0]!r}" if unknown else "no 'path'"
        raise ConfigError(f"a source with {found}; expected path, root, take, weight, apart")
    weight = given.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or weight <= 0:
        raise ConfigError(f"the weight of {path} is {weight!r}; expected a number above 0")
    if not isinstance(given.get("apart", False), bool):
        raise ConfigError(f"apart of {path} is {given['apart']!r}; expected true or false")
    root = given.get("root")
    return Source(
        path=_under(folder, path),
        root=None if root is None else _under(folder, str(root)),
        take=read_take(str(given.get("take", "all"))),
        weight=float(weight),
        apart=bool(given.get("apart", False)),
    )


def _under(folder: Path, path: str) -> str:
    return str(folder / path)


def gather(
    sources: Sequence[Source], seed: int, *, bad: Callable[[DataError], None] | None = None
) -> list[Sample]:
    """All samples of one epoch, source after source; the same for the same seed.

    Rows that cannot be used are told to `bad`, where it is given, and left out.

    Raises:
        DataError: A file that cannot be read; without `bad`, a row that cannot be used.
    """
    gathered: list[Sample] = []
    for number, source in enumerate(sources):
        for path in spread(source.path):
            samples = list(_samples(path, source, bad))
            taken = [samples[index] for index in source.take.indices(len(samples), seed + number)]
            whole, rest = divmod(source.weight, 1.0)
            part = random.Random(seed + number).sample(range(len(taken)), round(rest * len(taken)))
            gathered += taken * int(whole) + [taken[index] for index in sorted(part)]
    return gathered


def _samples(path: str, source: Source, bad: Callable[[DataError], None] | None) -> Iterator[Sample]:
    for sample in read_each(path, source.root):
        if isinstance(sample, DataError):
            if bad is None:
                raise sample
            bad(sample)
        elif source.apart and isinstance(sample, Record):
            yield from apart(sample)
        else:
            yield sample


def spread(path: str) -> list[str]:
    """The paths that `{a,b}` stands for.

    >>> spread("/data/{a,b}.json")
    ['/data/a.json', '/data/b.json']
    """
    match = re.search(r"\{([^{}]*)\}", path)
    if match is None:
        return [path]
    return [path[: match.start()] + name.strip() + path[match.end() :] for name in match[1].split(",")]
