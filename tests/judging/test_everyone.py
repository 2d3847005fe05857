"""A judge that nobody can use is given up soon, one that errs now and then never."""

import pytest

from llava_next_video.errors import ConfigError
from llava_next_video.judging import UndecidedError, UnreachedError, decide_each

NONSENSE = "As a language model, I have no opinion about this. " * 9


def outcomes(judge_says: list[object], *, trusted: bool = False, attempts: int = 1) -> tuple[int, list[int]]:
    """How many are decided, and which cases were asked about; an exception is raised instead of said."""
    asked: list[int] = []

    def judge(case: int) -> object:
        asked.append(case)
        if isinstance(said := judge_says[case], Exception):
            raise said
        return said

    count = decide_each(
        range(len(judge_says)),
        judge,
        what="items",
        at_once=1,
        attempts=attempts,
        rest_s=0.0,
        trusted=trusted,
        decided=lambda case, decision: None,
        undecided=lambda case, error: None,
    )
    return count, asked


def test_ten_cases_without_any_decision_end_the_run_with_what_was_said() -> None:
    asked = 0

    def judge(case: int) -> int:
        nonlocal asked
        asked += 1
        raise UndecidedError("no grade in the reply", NONSENSE)

    with pytest.raises(ConfigError) as raised:
        decide_each(
            range(146),
            judge,
            what="items",
            at_once=1,
            attempts=3,
            rest_s=0.0,
            trusted=False,
            decided=lambda case, decision: None,
            undecided=lambda case, error: None,
        )
    assert asked == 10 * 3
    quoted = "As a language model, I have no opinion about this. As a language model, I have n..."
    assert str(raised.value) == (
        f"the judge decided on none of the first 10 items (no grade in the reply {quoted!r}); name a better "
        "one and run the command again: answers and verdicts are kept"
    )


def test_nonsense_now_and_then_ends_no_run() -> None:
    wrong: list[object] = [UndecidedError("no", "Hm.")] * 12
    assert outcomes([*wrong[:9], 1, *wrong]) == (1, list(range(22)))
    assert outcomes(wrong, trusted=True) == (0, list(range(12)))


def test_who_is_not_reached_five_times_in_a_row_is_not_waited_for() -> None:
    gone: list[object] = [UnreachedError("not reached")] * 4
    assert outcomes([*gone, 1, *gone, 2])[0] == 2
    with pytest.raises(
        ConfigError, match=r"the judge was not reached for 5 items in a row \(not reached\); start"
    ):
        outcomes([1, *gone, *gone], trusted=True)
