"""What is to be captioned: from folders, globs, manifests and archives to a list of videos."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import cast

from llava_next_video.caption.cells import Cell, Missing, table_rows
from llava_next_video.data.record import Place, Slice
from llava_next_video.data.rows import VIDEO_ENDINGS, Row, container, read_rows
from llava_next_video.errors import ConfigError, DataError

ENDINGS = VIDEO_ENDINGS | {"mpg", "mpeg", "ts", "wmv", "flv", "3gp", "ogv"}
IDS = ("id", "video_id", "key", "__key__", "__path__")
SOURCES = ("path", "video", "videos", "video_path", "file", "file_name", "url", "uri", "bytes", "mp4")
DURATIONS = ("duration_s", "duration", "length_s")

Source = str | Slice | Cell | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One video to caption, and what to ask about it.

    Attributes:
        seconds: How long it is, if its manifest says so.
        own_prompt: Whether the prompt is from its row.
    """

    id: str
    source: Source
    prompt: str
    seconds: float | None = None
    own_prompt: bool = False


def list_items(inputs: Sequence[str], prompt: str) -> list[Item]:
    """All videos of the inputs, in order.

    An input is a folder (searched to its depths, for videos and WebDataset tars), a glob, a video, a list of
    paths (.txt), a table (.csv, .tsv), JSON lines, a JSON list, parquet or a tar. `{name}` in the prompt is
    the value in that column; a `prompt` column is each row's own, and the given one for rows without it. A
    row whose column is empty, and a sample of a tar without a video, are `Missing`, so that they become rows
    with an error.

    Raises:
        ConfigError: Nothing was found, or the prompt names a field that no row has.
        DataError: A line of a manifest cannot be used (file and line), or two videos have one id.
    """
    template = Template(prompt)
    items: dict[str, Item] = {}
    fields: set[str] = set()
    unfilled: ConfigError | None = None
    for given in inputs:
        for values, place in _found(given):
            fields.update(name for name in template.fields if not _empty(values.get(name)))
            try:
                own = _own_prompt(values)
                item = _item(values, place, own or template.fill(values, place))
                item = replace(item, own_prompt=own is not None)
            except ConfigError as error:
                unfilled = unfilled or error
                item = _item(values, place, template.text)
                item = replace(item, source=Missing(name=_named(item.source), told=str(error)))
            if item.id in items:
                raise DataError(
                    f"{place}: the id {item.id!r} stands for {_named(items[item.id].source)} and "
                    f"{_named(item.source)}; give each video an id of its own"
                )
            items[item.id] = item
    if unfilled is not None and not fields.issuperset(template.fields):
        raise unfilled
    if not items:
        raise ConfigError(
            f"no videos found in {', '.join(inputs)}; expected a folder or glob with files such as .mp4, or "
            "a manifest (.txt, .csv, .jsonl, .parquet, .tar)"
        )
    return list(items.values())


class Template:
    """A prompt with fields in braces.

    >>> Template("Describe {title}.").fill({"title": "a walk"}, Place(file="a.csv", line=2))
    'Describe a walk.'

    Raises:
        ConfigError: Braces that are no field.
    """

    def __init__(self, text: str) -> None:
        """Parse it once."""
        self.text = text
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigError(f"the prompt {text!r}: {error}; write {{{{ and }}}} for braces") from error
        self.fields = [name for _, name, _, _ in parts if name is not None]
        odd = [
            name
            for _, name, form, how in parts
            if name is not None and (not name.isidentifier() or form or how)
        ]
        if odd:
            raise ConfigError(
                f"the prompt {text!r}: {{{odd[0]}}} is no column name; write {{{{ and }}}} for braces"
            )

    def fill(self, values: Mapping[str, object], place: Place) -> str:
        """The prompt of one row.

        Raises:
            ConfigError: The row lacks a field.
        """
        if not self.fields:
            return self.text if "{{" not in self.text and "}}" not in self.text else self.text.format()
        missing = [name for name in self.fields if _empty(values.get(name))]
        if missing:
            known = sorted(
                name
                for name, value in values.items()
                if isinstance(value, str | int | float) and not _empty(value) and not name.startswith("__")
            )
            told = f"{place}: the prompt asks for {{{missing[0]}}}"
            if missing[0] in values:
                raise ConfigError(f"{told}, which is empty in this row; fill it in")
            raise ConfigError(f"{told}; this row has {', '.join(known) or 'none'}")
        return self.text.format_map({name: values[name] for name in self.fields})


def _found(given: str) -> Iterator[tuple[Mapping[str, object], Place]]:
    """The rows behind one input, each with its place; a file of a folder is a row of its own."""
    path = Path(given)
    if path.is_dir():
        for number, file in enumerate(_files(path), 1):
            name = Path(file).relative_to(path).as_posix()
            yield from _of_file(file, name, Place(file=given, line=number))
    elif path.exists():
        yield from _of_file(given, given, Place(file=given, line=1))
    elif any(letter in given for letter in "*?["):
        for number, file in enumerate(sorted(glob.glob(given, recursive=True)), 1):
            yield from _of_file(file, file, Place(file=given, line=number))
    elif "://" in given:
        yield {"id": given, "path": given}, Place(file=given, line=1)
    else:
        raise ConfigError(f"{given}: no such file or folder")


def _files(folder: Path) -> Iterator[str]:
    """Videos and tars below a folder, in the order of their names, without hidden ones."""
    for here, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and _ending(name) in ENDINGS | {"tar"}:
                yield os.path.join(here, name)


def _of_file(file: str, name: str, place: Place) -> Iterator[tuple[Mapping[str, object], Place]]:
    ending = _ending(file)
    if ending in ENDINGS:
        yield {"id": name, "path": os.path.abspath(file)}, place
        return
    root = os.path.dirname(os.path.abspath(file))
    for row in _rows(Path(file), ending):
        yield _rooted(row.values, root), row.place


def _rows(path: Path, ending: str) -> Iterable[Row]:
    match ending:
        case "txt" | "list":
            return (
                Row(values={"path": line.strip()}, place=Place(file=str(path), line=number))
                for number, line in _lines(path)
                if line.strip() and not line.startswith("#")
            )
        case "csv" | "tsv":
            return _csv_rows(path, "\t" if ending == "tsv" else ",")
    return table_rows(path) if container(path) == "parquet" else read_rows(path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 ({error.reason}); save it as UTF-8") from error


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.DictReader((text for _, text in _lines(path)), delimiter=delimiter, strict=True)
    try:
        for values in reader:
            place = Place(file=str(path), line=reader.line_num)
            if None in values or None in values.values():
                raise DataError(
                    f"{place}: expected {len(reader.fieldnames or ())} fields, as the first line has"
                )
            yield Row(values={key: value or None for key, value in values.items()}, place=place)
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.reader.line_num}: {error}; expected comma-separated values"
        ) from error


def _rooted(values: Mapping[str, object], root: str) -> Mapping[str, object]:
    """The row with its path made absolute; a manifest's paths are relative to its folder."""
    for name in SOURCES:
        value = values.get(name)
        if isinstance(value, str):
            located = value if "://" in value or value.startswith("data:") else os.path.join(root, value)
            return {"__path__": value, **values, name: located}
        if value is not None:
            return values
    return values


def _item(values: Mapping[str, object], place: Place, prompt: str) -> Item:
    source = next((values[name] for name in SOURCES if values.get(name) is not None), None)
    if isinstance(source, list) and len(source) == 1:
        source = source[0]
    if source is None and _ending(place.file) == "tar":
        told = f"{place}: no video in this sample; it has {', '.join(sorted(map(str, values)))}"
        source = Missing(name=f"{values.get('id')} in {place.file}", told=told)
    if not isinstance(source, str | Slice | Cell | Missing) or not source:
        if source:
            raise DataError(
                f"{place}: the video is of type {type(source).__name__}; expected a path, a URL or bytes"
            )
        given = sorted(name for name, value in values.items() if not _empty(value))
        raise DataError(f"{place}: no video; the row has only {given}, expected one of {', '.join(SOURCES)}")
    id = next((str(values[name]) for name in IDS if values.get(name) is not None), None)
    if id is None:
        raise DataError(f"{place}: a video in a table needs an id; add a column 'id'")
    return Item(id=id, source=source, prompt=prompt, seconds=_seconds(values, place))


def _own_prompt(values: Mapping[str, object]) -> str | None:
    own = values.get("prompt")
    return own if isinstance(own, str) and not _empty(own) else None


def _empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _seconds(values: Mapping[str, object], place: Place) -> float | None:
    for name in DURATIONS:
        value = values.get(name)
        if value is not None:
            try:
                return float(cast(str, value))
            except (TypeError, ValueError) as error:
                raise DataError(f"{place}: {name} is {value!r}; expected seconds") from error
    return None


def _named(source: Source) -> str:
    return source if isinstance(source, str) else source.name


def _ending(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()
