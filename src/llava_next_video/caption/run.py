"""From a list of videos to a folder of captions.

Three kinds of hands, each with its own pace, and no batch that all wait for: `workers` threads, each with a
decoder process of its own, read videos and hand them to the describer; the describer works on many at once;
this thread deals out the list and writes rows. What waits between them is bounded by bytes, not by count.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava_next_video.caption.claims import Claims
from llava_next_video.caption.duplicates import Dedupe, Duplicates
from llava_next_video.caption.feed import Feed, Task
from llava_next_video.caption.figures import Figures, Stopwatch
from llava_next_video.caption.items import Item
from llava_next_video.caption.ledger import Ledger
from llava_next_video.caption.outcome import (
    Describer,
    DescriberGoneError,
    Model,
    Outcome,
    Said,
    Seen,
    Told,
    TransientError,
    row_of,
    told_of,
)
from llava_next_video.caption.row import Row
from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.media import Limits

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
class _Event:
    """What a worker or the describer has to say about a task."""

    task: Task
    outcome: Outcome
    seen: Seen | None = None
    read_ms: float = 0.0
    first: bool = False


class Room:
    """Bytes that may be held at once; one thing alone always fits."""

    def __init__(self, bytes: int) -> None:
        self._free = threading.Condition()
        self._most = bytes
        self.held = 0

    def take(self, bytes: int) -> None:
        """Wait until there is room."""
        with self._free:
            self._free.wait_for(lambda: not self.held or self.held + bytes <= self._most)
            self.held += bytes

    def give_back(self, bytes: int) -> None:
        """The bytes are gone."""
        with self._free:
            self.held -= bytes
            self._free.notify_all()


class Run:
    """One process's part in captioning a list; `caption` is the way in."""

    def __init__(
        self, items: Sequence[Item], folder: Path, model: Model, settings: Settings, fingerprint: str
    ) -> None:
        """Read what is done, and who else is here."""
        self.model = model
        self.settings = settings
        self.fingerprint = fingerprint
        self.duplicates = Duplicates(settings.dedupe)
        self.claims = Claims(folder, lease_s=settings.lease_s)
        self.ledger = Ledger(folder, self.claims.name, heard=self.duplicates.read)
        self.claims.inherit = self.ledger.adopt
        self._items = items
        self._todo: queue.Queue[Task | None] = queue.Queue()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._room = Room(settings.held_bytes)
        self._busy = Stopwatch()
        self._blocked = Stopwatch()
        self._published_s = time.monotonic()
        self._looked_s = 0.0
        self._counts: dict[str, int] = {}
        self._started_s: float | None = None

    def go(self, told: Callable[[Figures], None] = lambda figures: None) -> Figures:
        """Caption what is not done; `told` hears the figures several times a second.

        Raises:
            DescriberGoneError: The model is gone; what was finished is safe.
            OSError: The disk is full or gone; what was finished is safe.
        """
        self.claims.bury_dead()
        self.ledger.refresh()
        self._earlier = self._everyone = self._count_done()
        self.feed = Feed(self._items, self.ledger, self.claims)
        try:
            if not self.feed.over:
                self._caption(told)
        finally:
            self._leave()
        figures = self.figures(over=True)
        told(figures)
        return figures

    def _caption(self, told: Callable[[Figures], None]) -> None:
        describer = self.model.load()
        seats = threading.Semaphore(describer.at_once)
        workers = [
            threading.Thread(target=self._work, args=(describer, seats), name=f"decode-{number}", daemon=True)
            for number in range(self.settings.workers)
        ]
        for worker in workers:
            worker.start()
        try:
            while not self.feed.over:
                self._deal()
                self._hear()
                told(self.figures())
        finally:
            describer.close()
            for _ in workers:
                self._todo.put(None)
            for worker in workers:
                worker.join(timeout=5.0)

    def figures(self, *, over: bool = False) -> Figures:
        """Where we stand."""
        now = time.monotonic()
        seconds = 0.0 if self._started_s is None else now - self._started_s
        here = dict(self._counts)
        done = sum(here.get(name, 0) for name in ("captioned", "duplicates", "errors"))
        if over:
            self._everyone = self._count_done()
        return Figures(
            total=len(self._items),
            earlier=self._earlier,
            others=max(0, self._everyone - self._earlier - done),
            seconds=seconds,
            idle_s=self._busy.read()[0],
            full_s=self._blocked.read()[1] / self.settings.workers,
            over=over,
            **here,
        )

    def _deal(self) -> None:
        """Keep two tasks for each worker ready."""
        while self._todo.qsize() < 2 * self.settings.workers and (task := self.feed.next()) is not None:
            if self._started_s is None:
                self._started_s = time.monotonic()
            self._todo.put(task)
        now = time.monotonic()
        if now - self._looked_s > (1.0 if self.feed.waits_for_others else LOOK_EVERY_S):
            self._looked_s = now
            self.claims.bury_dead()
            self.ledger.refresh()
            self._everyone = self._count_done()
        due = now - self._published_s > self.settings.part_s or self.feed.waits_for_others
        if len(self.ledger.kept) >= self.settings.part_rows or (due and self.ledger.kept):
            self.ledger.publish()
            self.feed.release()
            self._published_s = now

    def _hear(self) -> None:
        """Write down what has come in; waits a moment if nothing has."""
        try:
            event = self._events.get(timeout=0.1)
            while True:
                self._settle(event)
                event = self._events.get_nowait()
        except queue.Empty:
            pass

    def _settle(self, event: _Event) -> None:
        if isinstance(event.outcome, DescriberGoneError):
            raise event.outcome
        waiting = self._release_waiting(event)
        if isinstance(event.outcome, TransientError) and event.task.attempt < self.settings.attempts:
            self._count("retries")
            self.feed.again(event.task, self.settings.back_off_s * 2 ** (event.task.attempt - 1))
        else:
            row = self._row(event)
            self.ledger.keep(row)
            self._count_row(row)
            self.feed.settle()
        for task in waiting:
            self.feed.again(task, 0.0, counted=False)

    def _release_waiting(self, event: _Event) -> list[Task]:
        """Tasks that waited for this one: now they are answered, or one of them is the first."""
        if not event.first or event.seen is None:
            return []
        told = told_of(event.task.item, event.outcome) if isinstance(event.outcome, Said) else None
        return self.duplicates.done(event.seen.sight, told)

    def _row(self, event: _Event) -> Row:
        return row_of(
            event.task.item,
            event.outcome,
            event.seen.sight if event.seen else None,
            times_s=event.seen.times_s if event.seen else (),
            read_ms=round(event.read_ms, 1),
            attempts=event.task.attempt,
            model=self.model.name,
            fingerprint=self.fingerprint,
        )

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

    def _count_done(self) -> int:
        return sum(item.id in self.ledger for item in self._items)

    def _count(self, name: str, more: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + more

    def _work(self, describer: Describer, seats: threading.Semaphore) -> None:
        limits = Limits(kept_bytes=self.settings.held_bytes)
        with Decoder(timeout_s=self.settings.decode_timeout_s, limits=limits) as decoder:
            while (task := self._todo.get()) is not None:
                started = time.perf_counter()
                try:
                    self._do(task, decoder, started, describer, seats)
                except LlavaNextVideoError as error:
                    self._events.put(_Event(task=task, outcome=error, read_ms=_since(started)))
                except Exception as error:  # The outermost wall: one video of a million.
                    self._events.put(_Event(task=task, outcome=_wrapped(error), read_ms=_since(started)))

    def _do(
        self,
        task: Task,
        decoder: Decoder,
        started: float,
        describer: Describer,
        seats: threading.Semaphore,
    ) -> None:
        seen = describer.see(task.item, decoder)
        met = self.duplicates.meet(seen.sight, task)
        if met == "wait":
            return
        if isinstance(met, Told):
            self._events.put(_Event(task=task, outcome=met, seen=seen, read_ms=_since(started)))
            return
        read_ms = _since(started)
        self._blocked.enter()
        seats.acquire()
        self._room.take(seen.bytes)
        self._blocked.leave()
        self._busy.enter()

        def tell(outcome: Said | LlavaNextVideoError) -> None:
            self._busy.leave()
            self._room.give_back(seen.bytes)
            seats.release()
            lean = Seen(sight=seen.sight, times_s=seen.times_s, bytes=0, content=None)
            self._events.put(_Event(task=task, outcome=outcome, seen=lean, read_ms=read_ms, first=True))

        try:
            describer.ask(task.item, seen, tell)
        except LlavaNextVideoError as error:
            tell(error)
        except Exception as error:  # as in `_work`, but others may wait for this video
            tell(_wrapped(error))

    def _leave(self) -> None:
        """Publish and go; where that fails, we go like the dead, and the next run inherits."""
        try:
            self.ledger.close()
            self.feed.release()
        except BaseException:
            self.claims.stop()
            raise
        self.claims.close()


def _wrapped(error: Exception) -> LlavaNextVideoError:
    return LlavaNextVideoError(f"{type(error).__name__}: {error}")


def _since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)
