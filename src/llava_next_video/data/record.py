"""One training sample, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llava_next_video.errors import MediaError
from llava_next_video.messages import Image, Text, Turn, Video

Media = tuple[Image | Video, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sample stands: a file, and the line (in an archive or a table: the row), counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Bytes inside an uncompressed archive: a medium that is read only when it is needed."""

    file: str
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        """The bytes.

        Raises:
            MediaError: The archive is gone or shorter than it was.
        """
        try:
            with Path(self.file).open("rb") as archive:
                archive.seek(self.offset)
                content = archive.read(self.size)
        except OSError as error:
            raise MediaError(f"{self.name} in {self.file}: {error.strerror or error}") from error
        if len(content) != self.size:
            raise MediaError(f"{self.name} in {self.file}: {len(content)} bytes left of {self.size}")
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A conversation to learn from: an optional system turn, then user and assistant in turn.

    The sources of its media are absolute paths, URLs, bytes, slices of an archive, or lists of frames: a path
    in a file was relative to that file's root, and is joined to it once, when the file is read.
    """

    id: str
    turns: tuple[Turn, ...]
    place: Place

    @property
    def media(self) -> Media:
        """The media of all turns, in order."""
        return tuple(medium for turn in self.turns for medium in turn.media)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """A conversation that ends with a question, and two answers of which people liked one more."""

    id: str
    turns: tuple[Turn, ...]
    chosen: Turn
    rejected: Turn
    place: Place

    @property
    def media(self) -> Media:
        """The media of the prompt, in order."""
        return tuple(medium for turn in self.turns for medium in turn.media)


Sample = Record | Preference


def bare(record: Record) -> Record:
    """The record without the words of its users: what the assistant says follows the bare media.

    >>> turns = (Turn(role="user", parts=(Video(source="a.mp4"), Text(text="What is it?"))),)
    >>> bare(Record(id="a", turns=turns, place=Place(file="a.json", line=1))).turns[0].parts
    (Video(source='a.mp4'),)
    """
    turns = [turn if turn.role != "user" else Turn(role="user", parts=turn.media) for turn in record.turns]
    return Record(id=record.id, turns=tuple(turns), place=record.place)


def apart(record: Record) -> list[Record]:
    """Each question of the record with its answer as a record of its own, behind the same system and media.

    Right where no question leans on the one before. Records whose media are not all in the first question
    stay whole.
    """
    system = tuple(turn for turn in record.turns if turn.role == "system")
    spoken = record.turns[len(system) :]
    media = spoken[0].media
    if len(spoken) <= 2 or len(media) != len(record.media):
        return [record]
    pieces = []
    for number in range(0, len(spoken), 2):
        question = Turn(role="user", parts=(*media, *_words(spoken[number])))
        pieces.append(
            Record(
                id=f"{record.id}.{number // 2}",
                turns=(*system, question, spoken[number + 1]),
                place=record.place,
            )
        )
    return pieces


def _words(turn: Turn) -> tuple[Text, ...]:
    return tuple(part for part in turn.parts if isinstance(part, Text))


def source_name(source: object) -> str:
    """A medium's name for a report: its path or URL, or what it is."""
    match source:
        case str() | Path():
            text = str(source)
            return text if len(text) <= 200 else f"{text[:200]}..."
        case Slice(name=name, file=file):
            return f"{name} in {file}"
        case bytes():
            return f"{len(source)} bytes"
        case list() | tuple() if source:
            return f"{len(source)} frames from {source_name(source[0])}"
    return type(source).__name__
