"""The books of a run: what is next, what came of it, what others do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llava_next_video.caption.claims import Claims
from llava_next_video.caption.duplicates import Dedupe, Duplicates
from llava_next_video.caption.feed import Feed, Task
from llava_next_video.caption.figures import Figures
from llava_next_video.caption.items import Item
from llava_next_video.caption.ledger import Ledger
from llava_next_video.caption.outcome import (
    DescriberGoneError,
    Outcome,
    Said,
    Sight,
    TransientError,
    row_of,
    told_of,
)
from llava_next_video.caption.row import Row

LOOK_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run works; but for `dedupe`, none of it changes a caption.

    Attributes:
        workers: Videos that are decoded at once, each in a process of its own.
        decode_timeout_s: Seconds until a decoder is stopped.
        held_bytes: Frames that may wait for the model.
        part_rows: Rows of a part at most; `part_s`: a part is written at least that often.
        attempts: Times that a video is tried when its error may pass.
        back_off_s: Until the second try; doubled for each further one.
        dedupe: Answer equal bytes once (`exact`), or also clips that look the same (`near`).
        lease_s: Until a silent process of another machine counts as dead.
    """

    workers: int = 2
    decode_timeout_s: float = 120.0
    held_bytes: int = 1 << 30
    part_rows: int = 1000
    part_s: float = 300.0
    attempts: int = 4
    back_off_s: float = 1.0
    dedupe: Dedupe = "exact"
    lease_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What came of a task; `first`: others with the same content may wait for it."""

    task: Task
    outcome: Outcome
    sight: Sight | None = None
    times_s: tuple[float, ...] = ()
    read_ms: float = 0.0
    first: bool = False


class Desk:
    """Deals out tasks and writes down what comes of them; for one thread (but `duplicates`).

    Attributes:
        feed: What is next; there after `begin`.
    """

    def __init__(
        self, items: Sequence[Item], folder: Path, settings: Settings, *, model: str, fingerprint: str
    ) -> None:
        """Read what is done, and be seen by the others; `model` is its name."""
        self.settings = settings
        self.duplicates = Duplicates(settings.dedupe)
        self.claims = Claims(folder, lease_s=settings.lease_s)
        self.ledger = Ledger(folder, self.claims.name, heard=self.duplicates.read)
        self.claims.inherit = self.ledger.adopt
        self._items = items
        self._same = {"model": model, "fingerprint": fingerprint}
        self._published_s = time.monotonic()
        self._looked_s = 0.0
        self._counts: dict[str, int] = {}
        self._started_s: float | None = None

    def begin(self, *, retry_errors: bool = False) -> None:
        """Inherit from the dead, and see what is left; `retry_errors` forgets the errors of earlier runs."""
        self.claims.bury_dead()
        self.ledger.refresh()
        if retry_errors:
            self.ledger.forget_errors()
        self._earlier = self._everyone = self._count_done()
        self.feed = Feed(self._items, self.ledger, self.claims)

    def next(self) -> Task | None:
        """The next task; None if there is none now."""
        task = self.feed.next()
        if task is not None and self._started_s is None:
            self._started_s = time.monotonic()
        return task

    def settle(self, event: Event) -> None:
        """Write down what came of a task, or have it tried again.

        Raises:
            DescriberGoneError: What came is that there is no model any more.
            OSError: The disk is full or gone.
        """
        outcome, task = event.outcome, event.task
        if isinstance(outcome, DescriberGoneError):
            raise outcome
        waiting: list[Task] = []
        if event.first and event.sight is not None:
            told = told_of(task.item, outcome) if isinstance(outcome, Said) else None
            waiting = self.duplicates.done(event.sight, told)
        if isinstance(outcome, TransientError) and task.attempt < self.settings.attempts:
            self._count("retries")
            self.feed.again(task, self.settings.back_off_s * 2 ** (task.attempt - 1))
        else:
            row = row_of(
                task.item,
                outcome,
                event.sight,
                times_s=event.times_s,
                read_ms=round(event.read_ms, 1),
                attempts=task.attempt,
                **self._same,
            )
            self.ledger.keep(row)
            self._count_row(row)
            self.feed.settle()
        for one in waiting:  # now they are answered, or one of them is the first
            self.feed.again(one, 0.0, counted=False)

    def keep_house(self) -> None:
        """Now and then look at the others, and put rows into parts."""
        now, alone = time.monotonic(), self.feed.waits_for_others
        if now - self._looked_s > (1.0 if alone else LOOK_EVERY_S):
            self._looked_s = now
            self.claims.bury_dead()
            self.ledger.refresh()
            self._everyone = self._count_done()
        due = alone or now - self._published_s > self.settings.part_s
        if len(self.ledger.kept) >= self.settings.part_rows or (due and self.ledger.kept):
            self.ledger.publish()
            self.feed.release()
            self._published_s = now

    def figures(self, *, idle_s: float = 0.0, full_s: float = 0.0, over: bool = False) -> Figures:
        """Where we stand."""
        seconds = 0.0 if self._started_s is None else time.monotonic() - self._started_s
        done = sum(self._counts.get(name, 0) for name in ("captioned", "duplicates", "errors"))
        if over:
            self._everyone = self._count_done()
        return Figures(
            total=len(self._items),
            earlier=self._earlier,
            others=max(0, self._everyone - self._earlier - done),
            seconds=seconds,
            idle_s=idle_s,
            full_s=full_s,
            over=over,
            **self._counts,
        )

    def leave(self) -> None:
        """Publish and go; where that fails, we go like the dead, and the next run inherits."""
        try:
            self.ledger.close()
            self.feed.release()
        except BaseException:
            self.claims.stop()
            raise
        self.claims.close()

    def _count_done(self) -> int:
        return sum(item.id in self.ledger for item in self._items)

    def _count(self, name: str, more: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + more

    def _count_row(self, row: Row) -> None:
        if row.finish_reason == "error":
            self._count("errors")
        elif row.duplicate_of is not None:
            self._count("duplicates")
        else:
            self._count("captioned")
            self._count("flagged", bool(row.flags))
            self._count("tokens", row.completion_tokens)
            self._count("prompt_tokens", row.prompt_tokens)
            self._count("cached_tokens", row.cached_tokens)
