"""What is asked about which medium, and what is known of the truth."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llava_next_video.data.formats import read_row
from llava_next_video.data.record import Place, Record, apart, source_name
from llava_next_video.data.rows import Row, read_rows
from llava_next_video.errors import DataError
from llava_next_video.messages import Image, Text, Turn, Video


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question about media.

    Attributes:
        turn: The question as the user asks it, media first.
        caption: What the media show, in words: what a judge sees in their place; None if nobody said.
        truth: The right answer, where it is known.
    """

    id: str
    turn: Turn
    place: Place
    caption: str | None = None
    truth: str | None = None

    @property
    def text(self) -> str:
        """The words of the question."""
        return self.turn.text.strip()

    @property
    def key(self) -> str:
        """A name that changes with the question, its media and what is known of the truth."""
        media = [source_name(medium.source) for medium in self.turn.media]
        told = json.dumps([self.id, media, self.text, self.caption, self.truth])
        return hashlib.sha256(told.encode()).hexdigest()[:24]


def read_questions(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> list[Asked]:
    """The questions of a file: rows of `question` with `video` or `image`, or conversations in any format.

    A row may have a `caption` and an `answer`, which is the truth. Of a conversation each question is taken
    by itself, and what the assistant said is the truth. Media paths are relative to `root`, by default the
    file's folder.

    Raises:
        DataError: A row that is neither, or two questions with one id.
    """
    base = Path(root) if root is not None else Path(path).parent
    found: dict[str, Asked] = {}
    for row in read_rows(Path(path)):
        for asked in _of_row(row, base):
            if asked.id in found:
                raise DataError(
                    f"{row.place}: a second question {asked.id!r} (the first: {found[asked.id].place}); give "
                    "each its own id"
                )
            found[asked.id] = asked
    if not found:
        raise DataError(f"{path}: no questions in it; write rows with question and video")
    return list(found.values())


def _of_row(row: Row, root: Path) -> Iterator[Asked]:
    caption = row.values.get("caption")
    if caption is not None and not isinstance(caption, str):
        raise DataError(f"{row.place}: 'caption' is {type(caption).__name__}; expected text")
    if "question" not in row.values:
        sample = read_row(row, root)
        if not isinstance(sample, Record):
            raise DataError(f"{row.place}: a preference pair, which was judged before; give questions")
        for one in apart(sample):
            asks, says = [turn for turn in one.turns if turn.role != "system"][:2]
            if not asks.text.strip():
                raise DataError(f"{row.place}: nothing is asked; give the row a 'question'")
            yield Asked(id=one.id, turn=asks, place=row.place, caption=caption, truth=says.text.strip())
        return
    truth = row.values.get("answer")
    said = {"prompt": row.values["question"], "completion": truth if isinstance(truth, str) else "-"}
    media = {
        key: row.values[key] for key in ("id", "video", "videos", "image", "images") if key in row.values
    }
    record = read_row(dataclasses.replace(row, values={**media, **said}), root)
    yield Asked(
        id=record.id,
        turn=record.turns[0],
        place=row.place,
        caption=caption,
        truth=truth.strip() if isinstance(truth, str) else None,
    )


def media_of(asked: Asked) -> list[Image | Video]:
    """The media of a question, in order."""
    return [part for part in asked.turn.parts if not isinstance(part, Text)]
