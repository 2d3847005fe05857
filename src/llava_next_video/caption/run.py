"""The videos of a desk through a describer on this machine.

Three kinds of hands, each with its own pace, and no batch that all wait for: `workers` threads, each with a
decoder process of its own, read videos and hand them to the describer; the describer works on many at once;
the calling thread deals out tasks and writes rows. What waits between them is bounded by bytes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from llava_next_video.caption.desk import Desk, Event
from llava_next_video.caption.duplicates import Duplicates
from llava_next_video.caption.feed import Task
from llava_next_video.caption.figures import Figures, Stopwatch
from llava_next_video.caption.outcome import Describer, Said, Told
from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.media import Limits


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


class Workers:
    """Threads that read videos and hand them to a describer; what comes of them is in `events`.

    `model` stops the time in which the describer has nothing to do, `blocked` that in which workers wait for
    it.
    """

    def __init__(self, desk: Desk, describer: Describer) -> None:
        """Start them."""
        self.todo: queue.Queue[Task | None] = queue.Queue()
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.model = Stopwatch()
        self.blocked = Stopwatch()
        self._settings = desk.settings
        self._duplicates: Duplicates = desk.duplicates
        self._describer = describer
        self._room = Room(desk.settings.held_bytes)
        self._seats = threading.Semaphore(describer.at_once)
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True)
            for number in range(desk.settings.workers)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drop what is under way."""
        self._describer.close()
        for _ in self._threads:
            self.todo.put(None)
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _work(self) -> None:
        limits = Limits(kept_bytes=self._settings.held_bytes)
        with Decoder(timeout_s=self._settings.decode_timeout_s, limits=limits, threads=1) as decoder:
            while (task := self.todo.get()) is not None:
                started = time.perf_counter()
                try:
                    self._do(task, decoder, started)
                except Exception as error:  # The outermost wall: one video of a million.
                    self.events.put(Event(task=task, outcome=known(error), read_ms=_since(started)))

    def _do(self, task: Task, decoder: Decoder, started: float) -> None:
        seen = self._describer.see(task.item, decoder)
        sight, times_s, size = seen.sight, seen.times_s, seen.bytes
        met = self._duplicates.meet(sight, task)
        if met == "wait":
            return
        read_ms = _since(started)
        if isinstance(met, Told):
            self.events.put(Event(task=task, outcome=met, sight=sight, times_s=times_s, read_ms=read_ms))
            return
        self.blocked.enter()
        self._seats.acquire()
        self._room.take(size)
        self.blocked.leave()
        self.model.enter()

        def tell(outcome: Said | LlavaNextVideoError) -> None:
            self.model.leave()
            self._room.give_back(size)
            self._seats.release()
            self.events.put(
                Event(task=task, outcome=outcome, sight=sight, times_s=times_s, read_ms=read_ms, first=True)
            )

        try:
            self._describer.ask(task.item, seen, tell)
        except Exception as error:  # as in `_work`, but others may wait for this video
            tell(known(error))


def run(desk: Desk, describer: Describer, told: Callable[[Figures], None]) -> Figures:
    """Caption what the desk deals out; gives the last figures, and `told` hears them on the way."""
    workers = Workers(desk, describer)
    try:
        while not desk.feed.over:
            while workers.todo.qsize() < 2 * desk.settings.workers and (task := desk.next()) is not None:
                workers.todo.put(task)
            desk.keep_house()
            _hear(desk, workers)
            told(_figures(desk, workers))
    finally:
        workers.close()
    return _figures(desk, workers, over=True)


def known(error: Exception) -> LlavaNextVideoError:
    """The error as one of our family."""
    if isinstance(error, LlavaNextVideoError):
        return error
    return LlavaNextVideoError(f"{type(error).__name__}: {error}")


def _hear(desk: Desk, workers: Workers) -> None:
    """Write down what has come in; waits a moment if nothing has."""
    try:
        event = workers.events.get(timeout=0.1)
        while True:
            desk.settle(event)
            event = workers.events.get_nowait()
    except queue.Empty:
        pass


def _figures(desk: Desk, workers: Workers, *, over: bool = False) -> Figures:
    full_s = workers.blocked.read()[1] / desk.settings.workers
    return desk.figures(idle_s=workers.model.read()[0], full_s=full_s, over=over)


def _since(started: float) -> float:
    return 1000 * (time.perf_counter() - started)
