"""LLaMA-Factory's `dataset_info.json`: which columns of which file hold what.

Source: LLaMA-Factory, `data/README.md`, and `src/llamafactory/data/parser.py` (names and defaults).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

from llava_next_video.data.rows import Row
from llava_next_video.errors import DataError

FILE_NAME = "dataset_info.json"

STANDARD = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
    "images": "images",
    "videos": "videos",
    "chosen": "chosen",
    "rejected": "rejected",
}
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set of the file: where it is, and how its columns and roles are called."""

    path: Path
    ranking: bool
    formatting: str
    samples: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def read_sources(path: Path, name: str | None) -> list[Source]:
    """The data sets of a `dataset_info.json`, or the one of that name.

    Raises:
        DataError: An unknown name or key, or a data set that is not a local file.
    """
    try:
        entries = cast(dict[str, dict[str, object]], json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: {error.msg}") from error
    if name is not None and name not in entries:
        near = difflib.get_close_matches(name, entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{path}: no data set {name!r}{hint} known: {', '.join(entries)}")
    return [_source(path, key, entry) for key, entry in entries.items() if name in (None, key)]


def _source(path: Path, name: str, entry: Mapping[str, object]) -> Source:
    known = ("file_name", "formatting", "ranking", "columns", "tags", "num_samples")
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise DataError(f"{path}: {name}: {unknown[0]!r} is not read here; expected {', '.join(known)}")
    if "file_name" not in entry:
        raise DataError(f"{path}: {name}: no 'file_name'; only local files are read")
    formatting = str(entry.get("formatting", "alpaca"))
    if formatting not in ("alpaca", "sharegpt", "openai"):
        raise DataError(f"{path}: {name}: formatting is {formatting!r}; expected alpaca, sharegpt or openai")
    tags = dict(cast(Mapping[str, str], entry.get("tags") or {}))
    columns = dict(cast(Mapping[str, str], entry.get("columns") or {}))
    for key in columns:
        if key not in STANDARD and key != "messages":
            raise DataError(
                f"{path}: {name}: column {key!r} is not read here; expected {', '.join(STANDARD)}"
            )
    for key in tags:
        if key not in TAGS:
            raise DataError(f"{path}: {name}: tag {key!r} is not read here; expected {', '.join(TAGS)}")
    return Source(
        path=path.parent / str(entry["file_name"]),
        ranking=bool(entry.get("ranking", False)),
        formatting=formatting,
        samples=cast(int | None, entry.get("num_samples")),
        columns=columns,
        tags=tags,
    )


def rename(rows: Iterator[Row], source: Source) -> Iterator[Row]:
    """The rows with their columns and roles under the usual names."""
    for row in islice(rows, source.samples):
        values: dict[str, object] = {"id": row.values["id"]} if "id" in row.values else {}
        for key, column in _columns(source).items():
            if column in row.values and row.values[column] is not None:
                values[key] = row.values[column]
        if source.formatting == "alpaca":
            if source.ranking:
                values["prompt"] = values.pop("instruction", "")
            yield Row(values=values, place=row.place)
            continue
        for key in ("conversations", "chosen", "rejected"):
            if key in values:
                values[key] = _retagged(values[key], source, row)
        yield Row(values=values, place=row.place)


def _columns(source: Source) -> dict[str, str]:
    """Usual name -> the name in the file."""
    named = {usual: source.columns.get(key, usual) for key, usual in STANDARD.items()}
    if source.formatting == "alpaca":
        return named
    default = "messages" if source.formatting == "openai" else "conversations"
    return {"conversations": source.columns.get("messages", default), **named}


def _retagged(value: object, source: Source, row: Row) -> object:
    """Messages with LLaVA's `from` and `value`."""
    if isinstance(value, list):
        return [_retagged(message, source, row) for message in value]
    if not isinstance(value, Mapping):
        return value
    usual = dict(TAGS)
    if source.formatting == "openai":
        usual |= {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
        }
    names = usual | dict(source.tags)
    role, content = names["role_tag"], names["content_tag"]
    if role not in value or content not in value:
        raise DataError(f"{row.place}: a message has {sorted(value)}; expected {role!r} and {content!r}")
    roles = {names["user_tag"]: "human", names["assistant_tag"]: "gpt", names["system_tag"]: "system"}
    spoken = str(value[role])
    return {"from": roles.get(spoken, spoken), "value": value[content]}
