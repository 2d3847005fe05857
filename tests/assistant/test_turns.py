"""Turns: one thread at a time, in the order in which they came."""

import threading

from llava_next_video.assistant.turns import Turns


def test_nobody_takes_a_second_turn_while_another_thread_waits() -> None:
    turns, order = Turns(), list[str]()
    inside, waiting = threading.Event(), threading.Event()

    def first() -> None:
        with turns:
            inside.set()
            waiting.wait()
            while turns._queue.acquire(blocking=False):  # the other one is not there yet
                turns._queue.release()
            order.append("first")
        with turns:
            order.append("first again")

    def second() -> None:
        inside.wait()
        waiting.set()
        with turns:
            order.append("second")

    threads = [threading.Thread(target=work, daemon=True) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert order == ["first", "second", "first again"]


def test_whose_turn_it_is_may_enter_again() -> None:
    turns = Turns()
    with turns, turns:
        pass
    other = threading.Thread(target=turns.__enter__, daemon=True)
    other.start()
    other.join(timeout=20)
    assert not other.is_alive()
