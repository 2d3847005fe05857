"""The rows that are done: numbered parts, each id once.

The output is a log. Part `n` is put in place by a link that fails if there is a part `n` already, and only
by a writer that has read the parts before it and left out the ids they hold. So an id is in one part, no
matter how many processes write, which of them are slow, and which were taken for dead: nothing rests on
clocks or leases (`claims` only keep two from doing the same work).

Finished rows first go to the journal of their process, a line each, so that a kill costs nothing that was
finished, and a power cut a second of it. Whoever meets the journal of a dead process puts its rows into a
part. The order (part on disk, then journal emptied) makes a kill between the two harmless: the ids are in
the log, so the journal's copies are left out.

Source: a log of numbered entries with put-if-absent is Delta Lake's, `PROTOCOL.md`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from llava_next_video.caption.row import Row
from llava_next_video.caption.table import (
    read_ids,
    read_rows,
    read_table,
    without_errors,
    write_rows,
    write_table,
)
from llava_next_video.disk import put_if_absent, settle, settle_folder, write_whole

STATE = "_state"
VIEWS = "_jsonl"
SYNC_EVERY_S = 1.0


class Ledger:
    """The log of one output folder, and the journal of one process (`owner`); for one thread.

    Attributes:
        parts: How many parts of the log were read.
        kept: Rows of our journal that are in no part yet, by id.
        heard: Called with the file of each part that is read or written.
    """

    def __init__(self, folder: Path, owner: str, heard: Callable[[Path], None] = lambda part: None) -> None:
        self.folder = folder
        self.parts = 0
        self.kept: dict[str, Row] = {}
        self.heard = heard
        self._logged: set[str] = set()
        (folder / STATE).mkdir(parents=True, exist_ok=True)
        (folder / VIEWS).mkdir(exist_ok=True)
        self._draft = folder / STATE / f"{owner}.parquet"
        self._journal = journal_of(folder, owner)
        self._file = self._open()
        self._synced_s = time.monotonic()
        self.refresh()

    def __contains__(self, id: str) -> bool:
        """Whether a video is done, as far as we have read."""
        return id in self._logged or id in self.kept

    def logged(self, id: str) -> bool:
        """Whether a video is in the log, where everybody can see it."""
        return id in self._logged

    @property
    def count(self) -> int:
        """How many videos are done."""
        return len(self._logged) + len(self.kept)

    def part(self, number: int) -> Path:
        """Where a part stands."""
        return self.folder / f"part-{number:06d}.parquet"

    def refresh(self) -> None:
        """Read the parts that others have added."""
        while (ids := read_ids(self.part(self.parts))) is not None:
            self._take_in(ids)

    def keep(self, row: Row) -> None:
        """Write a finished row into the journal.

        Raises:
            OSError: The disk is full or gone; what was kept before is safe.
        """
        line = memoryview(f"{row.as_json()}\n".encode())
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            os.ftruncate(self._file, end)
            raise OSError(error.errno, error.strerror, str(self._journal)) from error
        self.kept[row.id] = row
        if time.monotonic() - self._synced_s > SYNC_EVERY_S:
            self.sync()

    def sync(self) -> None:
        """Let the disk catch up with the journal; write it again if we were taken for dead meanwhile."""
        if os.fstat(self._file).st_nlink == 0:
            os.close(self._file)
            self._file = self._open()
            os.write(self._file, _lines(self.kept.values()).encode())
        settle(self._file)
        self._synced_s = time.monotonic()

    def publish(self) -> None:
        """Put the journal's rows into a part, and empty it.

        Raises:
            OSError: The disk is full or gone; the journal keeps the rows.
        """
        self.sync()
        self._append(list(self.kept.values()))
        self.kept.clear()
        os.ftruncate(self._file, 0)

    def adopt(self, owner: str) -> int:
        """Put the journal of a dead process into a part; gives how many rows it saved."""
        journal = journal_of(self.folder, owner)
        saved = self._append(list(read_journal(journal)))
        journal.unlink(missing_ok=True)
        (self.folder / STATE / f"{owner}.parquet").unlink(missing_ok=True)
        return saved

    def close(self) -> None:
        """Publish what is left, and write the JSONL views that a kill prevented."""
        try:
            self.publish()
            for number in range(self.parts):
                if not self._view(number).exists():
                    write_whole(self._view(number), _lines(read_rows(self.part(number))))
            self._journal.unlink(missing_ok=True)
        finally:
            os.close(self._file)

    def forget_errors(self) -> int:
        """Take the rows without a caption out of the log, so that they are tried again; gives how many."""
        forgotten = 0
        for number in range(self.parts):
            table = read_table(self.part(number))
            good = without_errors(table)
            if good.num_rows == table.num_rows:
                continue
            # A kill behind any of these lines loses errors at most, and they are tried again.
            self._view(number).unlink(missing_ok=True)
            self._draw_up(partial(write_table, table=good))
            os.replace(self._draft, self.part(number))
            settle_folder(self.folder)
            self._logged.difference_update(table["id"].to_pylist())
            self._logged.update(good["id"].to_pylist())
            forgotten += table.num_rows - good.num_rows
        return forgotten

    def _append(self, rows: Sequence[Row]) -> int:
        """Add a part with those of the rows whose ids are in no part; gives how many those are."""
        while True:
            self.refresh()
            fresh = [row for row in rows if row.id not in self._logged]
            if not fresh:
                return 0
            self._draw_up(partial(write_rows, rows=fresh))
            if put_if_absent(self._draft, self.part(self.parts)):
                break
        settle_folder(self.folder)
        self._draft.unlink()
        write_whole(self._view(self.parts), _lines(fresh))
        self._take_in([row.id for row in fresh])
        return len(fresh)

    def _take_in(self, ids: Iterable[str]) -> None:
        self._logged.update(ids)
        self.parts += 1
        self.heard(self.part(self.parts - 1))

    def _draw_up(self, write: Callable[[Path], None]) -> None:
        self._draft.unlink(missing_ok=True)  # after a kill it may be another name of a part
        try:
            write(self._draft)
            with self._draft.open("rb") as file:
                settle(file.fileno())
        except BaseException:
            self._draft.unlink(missing_ok=True)
            raise

    def _view(self, number: int) -> Path:
        return self.folder / VIEWS / f"part-{number:06d}.jsonl"

    def _open(self) -> int:
        return os.open(self._journal, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o666)


def parts_of(folder: Path) -> Iterator[Path]:
    """The parts of a log, in order."""
    for number in count():
        path = folder / f"part-{number:06d}.parquet"
        if not path.exists():
            return
        yield path


def journal_of(folder: Path, owner: str) -> Path:
    """The journal of a process."""
    return folder / STATE / f"{owner}.jsonl"


def read_journal(path: Path) -> Iterable[Row]:
    """The rows of a journal, each id once; a line that a kill or a full disk cut short ends it."""
    rows: dict[str, Row] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:  # somebody was faster
        return ()
    for line in lines[:-1]:
        try:
            row = Row.from_json(line.decode())
        except ValueError:
            break
        rows[row.id] = row
    return rows.values()


def _lines(rows: Iterable[Row]) -> str:
    return "".join(f"{row.as_json()}\n" for row in rows)
