"""One question of a benchmark, and the file it came from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llava_next_video.data.record import Place
from llava_next_video.data.rows import Row, read_rows
from llava_next_video.errors import DataError

LETTERS = "ABCDEFGH"
VIDEO_ENDINGS = ("mp4", "MP4", "mkv", "webm", "avi", "mov", "gif")
"""What is put behind a video's name, in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a row of a benchmark asks, before any protocol puts it into words.

    Attributes:
        video: Name of the video, with or without its ending, relative to the folder of videos.
        questions: One question; two where a judge compares two answers.
        options: The options as the file has them, with letters or without; empty where none are given.
        truth: The letter of the right option, or the right answer.
        groups: What the scores are broken down by, e.g. duration and task.
    """

    id: str
    video: str
    questions: tuple[str, ...]
    truth: str
    options: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The columns of a row, read by name; what is missing or of another kind is named with its line.

    Attributes:
        number: Which row of its file it is, from 1; several may stand in one line.
    """

    row: Row
    number: int

    @property
    def place(self) -> Place:
        """Where the row stands."""
        return self.row.place

    def __contains__(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self.row.values

    def text(self, *names: str) -> str:
        """The text (or number, as text) of the first of these columns that is there.

        Raises:
            DataError: None is there, or it holds something else.
        """
        value = self._value(names)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._wrong(names[0], value, "text")
        return str(value).strip()

    def texts(self, *names: str) -> tuple[str, ...]:
        """The texts in a list.

        Raises:
            DataError: None is there, or it is no list of texts.
        """
        value = self._value(names)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise self._wrong(names[0], value, "a list of texts")
        return tuple(value)

    def letter(self, name: str, options: int) -> str:
        """The letter of the right option: a letter, or a number that counts from 0.

        Raises:
            DataError: It is neither, or there are fewer options.
        """
        told = self.text(name)
        known = LETTERS[:options]
        if told.isdecimal() and int(told) < options:
            return known[int(told)]
        if len(told) == 1 and told.upper() in known:
            return told.upper()
        raise DataError(
            f"{self.place}: {name!r} is {told!r}; expected {known[0]} to {known[-1]}, or 0 to {options - 1}"
        )

    def _value(self, names: tuple[str, ...]) -> object:
        for name in names:
            if name in self.row.values:
                return self.row.values[name]
        wanted = " or ".join(map(repr, names))
        found = ", ".join(sorted(map(str, self.row.values)))
        raise DataError(f"{self.place}: no column {wanted}; found {found}")

    def _wrong(self, name: str, value: object, expected: str) -> DataError:
        return DataError(f"{self.place}: {name!r} is {type(value).__name__}; expected {expected}")


def read_table(path: Path) -> Iterator[Fields]:
    """The rows of a parquet, JSON, JSON lines, CSV or TSV file (the last two by their ending).

    Raises:
        DataError: It cannot be read.
    """
    if path.suffix.lower() not in (".csv", ".tsv"):
        for number, row in enumerate(read_rows(path), start=1):
            yield Fields(row=row, number=number)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; give a CSV file in UTF-8") from error
    mark = "\t" if path.suffix.lower() == ".tsv" or "\t" in text.partition("\n")[0] else ","
    table = csv.DictReader(io.StringIO(text), delimiter=mark)
    for number, values in enumerate(table, start=1):
        place = Place(file=str(path), line=table.line_num)
        if None in values or None in values.values():
            raise DataError(f"{place}: not as many cells as the first line has names")
        yield Fields(row=Row(values=dict(values), place=place), number=number)


def find_videos(items: Iterable[Item], folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Where the videos of items are, by name; and the names of those that are nowhere.

    A name may lack its ending; a folder of frames will do as well.
    """
    found: dict[str, Path] = {}
    missing = []
    for name in dict.fromkeys(item.video for item in items):
        path = folder / name
        tries = [path, *(path.with_name(f"{path.name}.{ending}") for ending in VIDEO_ENDINGS)]
        existing = next((one for one in tries if one.exists()), None)
        if existing is None:
            missing.append(name)
        else:
            found[name] = existing
    return found, missing
