"""One thread that owns the network; many may ask it.

A server and a captioner both have many requests under way. Whoever steps the network would make the others
wait, so a thread of its own does, and tells each of them what is new.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from llava_next_video.assistant.reference import Network
from llava_next_video.engine import Load, Output, SamplingOptions, Timings
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.inputs import ModelInputs

Tell = Callable[[Output], None]
"""Called in the engine's thread, between two steps: everybody waits for it. It hands the output on
(`queue.put`, `loop.call_soon_threadsafe`) and returns; it never waits for anything."""

_Verb = Literal["abort", "stop"]

CLOSED = "the engine was closed and takes no requests; make another one"

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Request:
    """What the thread knows of a request: whom to tell, and the last output of each answer under way."""

    tell: Tell
    last: dict[int, Output]
    number: int | None = None
    refusal: Exception | None = None


class Ticket:
    """A request that was handed in; its outputs go to the `tell` that came with it."""

    def __init__(self, request: _Request, end: Callable[[_Request, _Verb], None]) -> None:
        """Made by `EngineThread.submit`."""
        self._request = request
        self._end = end

    @property
    def refusal(self) -> Exception | None:
        """What the network raised when it was given the request; there before `tell` hears of it."""
        return self._request.refusal

    def abort(self) -> None:
        """End the request, as nobody waits for it; `tell` hears "abort", unless it had ended before."""
        self._end(self._request, "abort")

    def stop(self) -> None:
        """End the request, as its text is complete; `tell` hears "stop", unless it had ended before."""
        self._end(self._request, "stop")


class EngineThread:
    """Owns a network in one daemon thread; every method may be called from any thread.

    Each request is told all its outputs in order. The last one (for each of its `n` answers) has a `finish`;
    one with "error" has a sentence in `error`, also when the network refused the request or crashed. After a
    crash `alive` is False and everything that was under way has been told so.

    Use it in a `with` statement, or call `close`.
    """

    def __init__(
        self, network: Network, *, name: str = "engine", before_step: Callable[[], None] = lambda: None
    ) -> None:
        """From now on nobody else may call the network; `before_step` is called in the thread."""
        self.network = network
        self._before_step = before_step
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._inbox: deque[Callable[[], None]] = deque()
        self._reports: list[Future[Load]] = []
        self._open: set[_Request] = set()
        self._closing = False
        self._over: str | None = None
        # Only the thread itself looks at this one:
        self._numbered: dict[int, _Request] = {}
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        # A daemon thread that is cut off inside torch brings the whole process down with it.
        atexit.register(self.close)

    def __enter__(self) -> EngineThread:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether requests are taken: not after `close`, nor after a crash."""
        with self._changed:
            return not self._closing and self._over is None

    def submit(
        self, inputs: ModelInputs, options: SamplingOptions, tell: Tell, *, salt: bytes = b""
    ) -> Ticket:
        """Hand in a request; returns at once.

        Args:
            inputs: The prompt.
            options: How to choose tokens.
            tell: Hears each output of the request, in the engine's thread, between two steps. It must be
                quick (put the output into a queue): whatever time it takes, every other request waits. Once
                it raises, its request is aborted and hears no more.
            salt: What the network computed is shared only among requests with equal salt.

        Raises:
            LlavaNextVideoError: The thread was closed, or the network crashed.
        """
        blank = _blank(inputs)
        request = _Request(tell=tell, last={index: replace(blank, index=index) for index in range(options.n)})
        with self._changed:
            if self._closing or self._over is not None:
                raise LlavaNextVideoError(self._over or CLOSED)
            self._open.add(request)
            self._inbox.append(partial(self._add, request, inputs, options, salt))
            self._changed.notify()
        return Ticket(request, self._end)

    def report(self) -> Load:
        """The network's figures between two steps; waits for the step that is under way."""
        promise: Future[Load] = Future()
        with self._changed:
            if self._over is not None or threading.current_thread() is self._thread:
                return self.network.load()
            self._reports.append(promise)
            self._changed.notify()
        return promise.result()

    def close(self, *, drain: bool = False) -> None:
        """Take no more requests, abort those under way (`drain`: finish them), and end the thread.

        Returns when the thread has ended; called by a `tell`, it returns at once. May be called again, also
        to abort what an earlier call drains.
        """
        with self._changed:
            self._closing = True
            if not drain:
                self._inbox.extend(partial(self._tell_network, request, "abort") for request in self._open)
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
            atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            while self._take_in():
                self._before_step()
                for output in self.network.step():
                    if output.request_id in self._numbered:
                        self._hand_out(self._numbered[output.request_id], output)
        except Exception as error:
            logger.exception("the network crashed")
            self._fail(f"the engine crashed ({type(error).__name__}: {error}); start it again")

    def _take_in(self) -> bool:
        """Do what was asked for and wait for something to compute; False if there never will be."""
        while True:
            with self._changed:
                while not (self._inbox or self._reports or self._closing or self.network.busy):
                    self._changed.wait()
                todo, self._inbox = self._inbox, deque()
                self._answer_reports()
                if self._closing and not todo and not self.network.busy:
                    self._over = CLOSED
                    return False
            for do in todo:
                do()
            if self.network.busy:
                return True

    def _answer_reports(self) -> None:
        if self._reports:
            figures = self.network.load()
            for promise in self._reports:
                promise.set_result(figures)
            self._reports.clear()

    def _add(self, request: _Request, inputs: ModelInputs, options: SamplingOptions, salt: bytes) -> None:
        try:
            request.number = self.network.add(inputs, options, salt=salt)
        except Exception as error:
            request.refusal = error
            known = isinstance(error, LlavaNextVideoError)
            self._end_with_error(request, str(error) if known else f"{type(error).__name__}: {error}")
        else:
            self._numbered[request.number] = request

    def _end(self, request: _Request, verb: _Verb) -> None:
        with self._changed:
            if request in self._open:
                self._inbox.append(partial(self._tell_network, request, verb))
                self._changed.notify()

    def _tell_network(self, request: _Request, verb: _Verb) -> None:
        if request.number is not None and request.number in self._numbered:
            (self.network.abort if verb == "abort" else self.network.stop)(request.number)

    def _hand_out(self, request: _Request, output: Output) -> None:
        request.last[output.index] = output
        if output.finish is not None:
            del request.last[output.index]
        if not request.last:
            self._forget(request)
        try:
            request.tell(output)
        except Exception:
            logger.exception("the one who asked did not take an output; its request is aborted")
            self._tell_network(request, "abort")
            self._forget(request)

    def _end_with_error(self, request: _Request, told: str) -> None:
        """End the answers of a request of which the network knows nothing, or nothing any more."""
        for last in list(request.last.values()):
            last.timings.finished_s = time.monotonic()
            self._hand_out(request, replace(last, ids=(), logprobs=(), finish="error", error=told))

    def _forget(self, request: _Request) -> None:
        if request.number is not None:
            self._numbered.pop(request.number, None)
        with self._changed:
            self._open.discard(request)

    def _fail(self, told: str) -> None:
        with self._changed:
            self._over = told
            self._inbox.clear()
            self._answer_reports()
            waiting = list(self._open)
        for request in waiting:
            self._end_with_error(request, told)


def _blank(inputs: ModelInputs) -> Output:
    """What is known of an answer before the network has said anything."""
    return Output(
        request_id=-1,
        index=0,
        ids=(),
        logprobs=(),
        finish=None,
        error=None,
        prompt_tokens=len(inputs.ids),
        cached_tokens=0,
        completion_tokens=0,
        timings=Timings(arrived_s=time.monotonic()),
    )
