"""From a file of any container to rows, each with its line.

Knows JSON lists, JSON lines, parquet and WebDataset tars, told apart by content, never by name. What the keys
of a row mean is the business of `formats`.
"""

from __future__ import annotations

import importlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from llava_next_video.data.record import Place, Slice
from llava_next_video.errors import DataError, MissingExtraError

Container = Literal["json", "jsonl", "parquet", "tar"]

VIDEO_ENDINGS = frozenset({"mp4", "mkv", "webm", "avi", "mov", "m4v", "gif"})
IMAGE_ENDINGS = frozenset({"jpg", "jpeg", "png", "webp", "bmp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sample as its file spells it."""

    values: Mapping[str, object]
    place: Place


def container(path: Path) -> Container:
    """How the rows are stored.

    Raises:
        DataError: The file is missing, empty, or none of the four.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give a file of samples") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return "json"
    if text.startswith(b"{"):
        return "jsonl"
    if tarfile.is_tarfile(path):
        return "tar"
    found = "is empty" if not head else f"starts with {head[:12]!r}"
    raise DataError(f"{path}: {found}; expected a JSON list, JSON lines, parquet or a tar of samples")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, in order.

    Raises:
        DataError: The file or a row cannot be read; its line is named.
        MissingExtraError: A parquet file without pyarrow.
    """
    match container(path):
        case "json":
            return _list_rows(path)
        case "jsonl":
            return _line_rows(path)
        case "parquet":
            return _parquet_rows(path)
        case "tar":
            return _tar_rows(path)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _list_rows(path: Path) -> Iterator[Row]:
    """Rows of one JSON list; each is parsed alone, so that a mistake has a line and the rest stays small."""
    text, decoder = _text(path), json.JSONDecoder()
    position = text.index("[") + 1
    line, counted = 1, 0
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        line, counted = line + text.count("\n", counted, position), position
        if position >= len(text):
            raise DataError(f"{path}:{line}: the list is not closed; the file was cut short")
        if text[position] == "]":
            return
        try:
            values, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: {error.msg}; expected a JSON object") from error
        yield _row(values, Place(file=str(path), line=line))


def _line_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: {error.msg} at column {error.colno}; expected a JSON object a line"
                    ) from error
                yield _row(values, Place(file=str(path), line=number))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _row(values: object, place: Place) -> Row:
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object with a sample, got {type(values).__name__}")
    return Row(values=cast(dict[str, object], values), place=place)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is parquet, and pyarrow is not installed; pip install 'llava-next-video[caption]'"
        ) from error
    number = 0
    with parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                given = {key: value for key, value in values.items() if value is not None}
                yield Row(values=given, place=Place(file=str(path), line=number))


def _tar_rows(path: Path) -> Iterator[Row]:
    """WebDataset: neighbouring members with one stem are one sample; the endings are its keys."""
    with _open_tar(path) as archive:
        stem: str | None = None
        values: dict[str, object] = {}
        number = 0
        for member in archive:
            if not member.isfile():
                continue
            name = PurePosixPath(member.name)
            key, _, ending = name.name.partition(".")
            current = str(name.parent / key)
            if stem is not None and current != stem:
                number += 1
                yield Row(values=values, place=Place(file=str(path), line=number))
                values = {}
            stem = current
            values.setdefault("id", current)
            _add_member(values, archive, member, ending.lower(), Place(file=str(path), line=number + 1))
        if stem is not None:
            yield Row(values=values, place=Place(file=str(path), line=number + 1))


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: {error}; give an uncompressed tar, so that media can be read in place"
        ) from error


def _add_member(
    values: dict[str, object],
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    ending: str,
    place: Place,
) -> None:
    medium = Slice(file=place.file, offset=member.offset_data, size=member.size, name=member.name)
    last = ending.rpartition(".")[2]
    if last in VIDEO_ENDINGS:
        cast(list[object], values.setdefault("videos", [])).append(medium)
    elif last in IMAGE_ENDINGS:
        cast(list[object], values.setdefault("images", [])).append(medium)
    elif last in ("json", "txt"):
        content = archive.extractfile(member)
        text = content.read().decode("utf-8") if content is not None else ""
        if last == "txt":
            values["caption"] = text.strip()
            return
        try:
            loaded = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: {member.name}: {error.msg}; expected a JSON object") from error
        # The archive's own media win: paths inside the JSON point to where it was packed.
        values |= {key: value for key, value in _row(loaded, place).values.items() if key not in MEDIA_KEYS}
    else:
        raise DataError(
            f"{place}: {member.name} is neither a medium nor .json or .txt; take it out of the archive"
        )


MEDIA_KEYS = ("image", "images", "video", "videos")
