"""Videos that show the same are answered once."""

from __future__ import annotations

import base64
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from llava_next_video.caption.outcome import Sight, Told
from llava_next_video.caption.table import read_table

Dedupe = Literal["off", "exact", "near"]
Frames = UInt8[np.ndarray, "frames height width 3"]

CELLS = 8
MEAN_LEVELS = 3.0
MOST_LEVELS = 24
MOST_CANDIDATES = 256
TELL = "insert or ignore into told values (?, ?, ?, ?, ?)"
COLUMNS = [
    "id",
    "source_sha256",
    "prompt",
    "caption",
    "finish_reason",
    "flags",
    "duplicate_of",
    "look",
    "duration_s",
]


class Duplicates:
    """Remembers captions by what was seen; its memory is a temporary file of sqlite, so it does not grow.

    Threads may meet videos at once. Who comes while the first one is being answered waits for it.
    """

    def __init__(self, how: Dedupe) -> None:
        """Start with no memory; `read` gives it the parts that are there."""
        self.how = how
        self._lock = threading.Lock()
        self._waiting: dict[bytes, list[Any]] = {}
        self._file = sqlite3.connect("", check_same_thread=False)  # a private file that goes with us
        self._file.execute(
            "create table told (key blob primary key, id text, caption text, finish text, flags text)"
        )
        self._file.execute(
            "create table looks (band integer, key blob, prompt text, duration real, look blob)"
        )
        self._file.execute("create index bands on looks (band)")

    def read(self, part: Path) -> None:
        """Learn the captions of a part."""
        if self.how == "off":
            return
        told = []
        with self._lock:
            for row in read_table(part, COLUMNS).to_pylist():
                if row["finish_reason"] == "error" or row["duplicate_of"] or not row["source_sha256"]:
                    continue
                sight = Sight(
                    sha256=row["source_sha256"],
                    prompt=row["prompt"],
                    duration_s=row["duration_s"],
                    look=row["look"],
                )
                key = sight.key
                told.append((key, row["id"], row["caption"], row["finish_reason"], " ".join(row["flags"])))
                self._remember(key, sight)
            self._file.executemany(TELL, told)

    def meet(self, sight: Sight, task: object) -> Told | Literal["first", "wait"]:
        """What was told about its like; `first`: nothing yet; `wait`: `done` will give the task back."""
        if self.how == "off":
            return "first"
        with self._lock:
            for key in [sight.key, *self._alike(sight)]:
                if key in self._waiting:
                    self._waiting[key].append(task)
                    return "wait"
                if (told := self._told(key)) is not None:
                    return told
            self._waiting[sight.key] = []
            self._remember(sight.key, sight)
            return "first"

    def done(self, sight: Sight, told: Told | None) -> list[Any]:
        """The first one was answered, or (None) failed; gives the tasks that waited for it."""
        if self.how == "off":
            return []
        with self._lock:
            if told is not None:
                self._tell(sight.key, told)
            return self._waiting.pop(sight.key, [])

    def _told(self, key: bytes) -> Told | None:
        found = self._file.execute(
            "select id, caption, finish, flags from told where key = ?", (key,)
        ).fetchone()
        if found is None:
            return None
        id, caption, finish, flags = found
        return Told(id=id, caption=caption, finish_reason=finish, flags=tuple(flags.split()))

    def _tell(self, key: bytes, told: Told) -> None:
        row = (key, told.id, told.caption, told.finish_reason, " ".join(told.flags))
        self._file.execute(TELL, row)

    def _remember(self, key: bytes, sight: Sight) -> None:
        if self.how == "near" and sight.look is not None:
            look = base64.b64decode(sight.look)
            rows = [(band, key, sight.prompt, sight.duration_s, look) for band in bands(look)]
            self._file.executemany("insert into looks values (?, ?, ?, ?, ?)", rows)

    def _alike(self, sight: Sight) -> Iterable[bytes]:
        """Keys of clips as long as this one that look like it, from those that share a band with it."""
        if self.how != "near" or sight.look is None:
            return
        look = base64.b64decode(sight.look)
        long_s = sight.duration_s or 0.0
        found = self._file.execute(
            "select distinct key, look from looks where band in (?, ?, ?, ?) and prompt = ? "
            "and abs(coalesce(duration, 0) - ?) <= ? limit ?",
            (*bands(look), sight.prompt, long_s, max(0.2, 0.02 * long_s), MOST_CANDIDATES),
        )
        yield from [key for key, other in found.fetchall() if alike(look, other)]


def look_of(frames: Frames) -> str:
    """A thumbnail of first, middle and last frame, 8 x 8 colours each, as text."""
    chosen = frames[[0, len(frames) // 2, len(frames) - 1]]
    height, width = chosen.shape[1:3]
    # The same 16 x 16 places of each cell, whatever the size of the clip.
    places = (np.arange(CELLS * 16) + 0.5) / (CELLS * 16)
    sampled = chosen[:, (places * height).astype(int)][:, :, (places * width).astype(int)]
    cells = sampled.reshape(len(chosen), CELLS, 16, CELLS, 16, 3).mean(axis=(2, 4))
    return base64.b64encode(cells.round().astype(np.uint8).tobytes()).decode()


def alike(one: bytes, other: bytes) -> bool:
    """Whether two thumbnails differ by no more than another size or quality of the same clip.

    No cell may differ much: a small thing of another colour is another clip.

    >>> alike(bytes(192), bytes(191) + bytes([20])), alike(bytes(192), bytes(191) + bytes([99]))
    (True, False)
    """
    if len(one) != len(other):
        return False
    apart = np.abs(np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8))
    return bool(apart.mean() <= MEAN_LEVELS and apart.max() <= MOST_LEVELS)


def bands(look: bytes) -> tuple[int, int, int, int]:
    """Four numbers of which like thumbnails share at least one, nearly always.

    Each says, for 16 cells of the middle frame, which are brighter than the one to their right by a clear
    margin: a difference hash in four bands, so that a look-up need not go through all clips.
    """
    cells = np.frombuffer(look, np.uint8).reshape(-1, CELLS, CELLS, 3)
    light = cells[len(cells) // 2].astype(int).sum(axis=-1)
    brighter = (light - np.roll(light, -1, axis=1) > 3 * MOST_LEVELS).reshape(4, -1)
    values = (np.packbits(brighter, axis=1).astype(int) * (1, 256)).sum(axis=1)
    one, two, three, four = ((number << 16) + int(value) for number, value in enumerate(values))
    return one, two, three, four
