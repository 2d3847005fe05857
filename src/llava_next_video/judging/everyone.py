"""Every case decided, or the run ended where nobody decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llava_next_video.errors import ConfigError
from llava_next_video.judging.attempts import UndecidedError, UnreachedError, first_decision

UNREACHED_AT_MOST = 5
UNDECIDED_AT_MOST = 10
QUOTED = 80

Case = TypeVar("Case")
Decision = TypeVar("Decision")


def decide_each(
    cases: Sequence[Case],
    judge: Callable[[Case], Decision],
    *,
    what: str,
    at_once: int,
    attempts: int,
    rest_s: float,
    trusted: bool,
    decided: Callable[[Case, Decision], None],
    undecided: Callable[[Case, UndecidedError], None],
    left_open: Callable[[Case, UndecidedError], None] = lambda case, error: None,
) -> int:
    """Have cases judged, several at once, each so often at most; gives the number of those decided.

    Args:
        cases: What to judge.
        judge: Decides one of them, or raises `UndecidedError`.
        what: What the cases are called in an error, in the plural.
        at_once: How many are judged at the same time.
        attempts: As `first_decision` has it.
        rest_s: Likewise.
        trusted: Whether this judge has decided anything earlier; it may then fail on many in a row.
        decided: Hears each decision.
        undecided: Hears of every attempt that failed.
        left_open: Hears of each case that stayed without a decision, with the last failure.

    Raises:
        ConfigError: Nobody was reached for `UNREACHED_AT_MOST` cases in a row; the first `UNDECIDED_AT_MOST`
            cases stayed without a decision, and none was ever made; or the judge will never answer.
    """
    over = threading.Event()
    patience = _Patience(what, trusted)

    def decide(case: Case) -> bool:
        if over.is_set():
            return False
        failures: list[UndecidedError] = []

        def failed(error: UndecidedError) -> None:
            failures.append(error)
            undecided(case, error)

        try:
            decision = first_decision(lambda: judge(case), attempts=attempts, rest_s=rest_s, undecided=failed)
            if decision is not None:
                decided(case, decision)
                patience.restore()
                return True
            left_open(case, failures[-1])
            patience.lose(failures)
        except BaseException:
            over.set()
            raise
        return False

    with ThreadPoolExecutor(at_once, thread_name_prefix="judge") as pool:
        try:
            return sum(pool.map(decide, cases))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def reason(error: str, reply: str) -> str:
    """Why there is no decision, with how the reply begins if there is one.

    >>> reason("no score in the reply", "I like it!"), reason("not reached", "")
    ("no score in the reply 'I like it!'", 'not reached')
    """
    words = " ".join(reply.split())
    if not words:
        return error
    return f"{error} {words if len(words) <= QUOTED else words[:QUOTED] + '...'!r}"


class _Patience:
    """Counts cases that stayed open; may be used by several threads."""

    def __init__(self, what: str, trusted: bool) -> None:
        self._what = what
        self._trusted = trusted
        self._lock = threading.Lock()
        self._unreached = self._open = 0

    def restore(self) -> None:
        """A decision was made."""
        with self._lock:
            self._unreached, self._trusted = 0, True

    def lose(self, failures: Sequence[UndecidedError]) -> None:
        """A case stayed open after these failures.

        Raises:
            ConfigError: That is enough.
        """
        last = failures[-1]
        with self._lock:
            if all(isinstance(failure, UnreachedError) for failure in failures):
                self._unreached += 1
                if self._unreached >= UNREACHED_AT_MOST:
                    raise ConfigError(
                        f"the judge was not reached for {self._unreached} {self._what} in a row ({last}); "
                        "start it and run the same command again: answers and verdicts are kept"
                    ) from last
                return
            self._unreached = 0
            self._open += 1
            if not self._trusted and self._open >= UNDECIDED_AT_MOST:
                raise ConfigError(
                    f"the judge decided on none of the first {self._open} {self._what} "
                    f"({reason(str(last), last.reply)}); name a better one and run the command again: "
                    "answers and verdicts are kept"
                ) from last
