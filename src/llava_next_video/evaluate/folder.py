"""The output folder: a manifest, the questions, and logs that only grow.

manifest.json            everything the scores depend on; put once, and never changed
questions.jsonl          the items with their prompts, put once
answers-1-of-1.jsonl     an answer a line, on the disk before the next one; a file for each shard
verdicts-1-of-1.jsonl    what judges said, likewise
items.jsonl, report.json the scored items and the scores, written anew from these
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava_next_video.disk import write_whole
from llava_next_video.errors import ConfigError, DataError
from llava_next_video.evaluate.items import Item
from llava_next_video.evaluate.manifest import Manifest, refuse_change
from llava_next_video.judging import whole_lines

MANIFEST, QUESTIONS = "manifest.json", "questions.jsonl"
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Part `number` of `count`, from 1: every so-many-th video with all its items."""

    number: int = 1
    count: int = 1

    @classmethod
    def parsed(cls, text: str) -> Shard:
        """A shard as it is written on the command line.

        >>> Shard.parsed("2/4")
        Shard(number=2, count=4)

        Raises:
            ConfigError: It is not written so, or not inside.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"shard {text!r}; expected for instance 2/4, the second of four")
        return cls(number=int(found[1]), count=int(found[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items whose videos are ours."""
        videos = list(dict.fromkeys(item.video for item in items))
        ours = set(videos[self.number - 1 :: self.count])
        return [item for item in items if item.video in ours]

    def file(self, kind: str) -> str:
        """The name of a log."""
        return f"{kind}-{self.number}-of-{self.count}.jsonl"


def begin(folder: Path, manifest: Manifest, questions: Iterable[tuple[Item, Sequence[str]]]) -> None:
    """Make a folder ours, or go on in one that was begun with the same manifest.

    Raises:
        ConfigError: It was begun with another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_change(freeze(folder / MANIFEST, manifest), manifest, folder)
    asked = "".join(_line({**asdict(item), "prompts": said}) for item, said in questions)
    write_whole(folder / QUESTIONS, asked, replace=False)


def freeze(path: Path, manifest: Manifest, *, replace: bool = False) -> Manifest:
    """Put a manifest where none is yet, or to `replace` one; gives the one that is there then."""
    write_whole(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", replace=replace)
    return _frozen(path)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        DataError: It has none.
    """
    return _frozen(folder / MANIFEST)


def _frozen(path: Path) -> Manifest:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path.parent}: no evaluation was begun there (no {path.name}); name its output"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged; restore it, or begin anew elsewhere") from error


def read_questions(folder: Path) -> list[tuple[Item, tuple[str, ...]]]:
    """The items of a folder with their prompts."""
    found = []
    for line in whole_lines(folder / QUESTIONS):
        prompts = tuple(line.pop("prompts"))
        line |= {key: tuple(line[key]) for key in ("questions", "options")}
        found.append((Item(**line), prompts))
    return found


def read_log(folders: Iterable[Path], kind: str) -> list[Line]:
    """The lines of all shards of some folders."""
    return [
        line
        for folder in folders
        for path in sorted(folder.glob(f"{kind}-*-of-*.jsonl"))
        for line in whole_lines(path)
    ]


@contextlib.contextmanager
def alone(path: Path, otherwise: str = "share the work with --shard 1/2 and 2/2") -> Iterator[None]:
    """While this lasts, no other process works on that log; the system forgets it with the process.

    The error of a second one says to wait, or to do `otherwise`.

    Raises:
        ConfigError: Another one does.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{path}: another process writes it; wait for it, or {otherwise}") from error
        yield
    finally:
        os.close(handle)


def _line(values: object) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
