"""One thread owns the network: many submit, everybody is told the end, nothing spins or hangs."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llava_next_video import VideoAssistant
from llava_next_video.assistant import EngineThread, Ticket
from llava_next_video.assistant.reference import Network
from llava_next_video.engine import Load, Output, SamplingOptions
from llava_next_video.errors import CapacityError, LlavaNextVideoError
from llava_next_video.inputs import ModelInputs

SOON_S = 60.0


@pytest.fixture(scope="module")
def assistant(tiny_checkpoint: Path) -> VideoAssistant:
    return VideoAssistant.load(tiny_checkpoint, dtype="float32")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> VideoAssistant:
    return VideoAssistant.load(tiny_checkpoint, reference=True)


@pytest.fixture
def thread(assistant: VideoAssistant) -> Iterator[EngineThread]:
    with EngineThread(assistant.network) as thread:
        yield thread
    assert not assistant.network.busy


def prompt(last: int, length: int = 12) -> ModelInputs:
    return ModelInputs(ids=(1, *range(20, 18 + length), last))


def up_to(tokens: int, n: int = 1, **more: float) -> SamplingOptions:
    return SamplingOptions(max_new_tokens=tokens, ignore_eos=True, n=n, **more)  # type: ignore[arg-type]


class Heard:
    """What a request was told."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self._last: queue.SimpleQueue[Output] = queue.SimpleQueue()
        self.first = threading.Event()

    def __call__(self, output: Output) -> None:
        self.outputs.append(output)
        self.first.set()
        if output.finish is not None:
            self._last.put(output)

    def end(self) -> Output:
        return self._last.get(timeout=SOON_S)

    @property
    def ids(self) -> list[int]:
        return [token for output in self.outputs for token in output.ids]


@dataclass
class Brittle:
    """A network that breaks once it has made some steps."""

    network: Network
    steps: int

    @property
    def busy(self) -> bool:
        return self.network.busy

    def add(self, inputs: ModelInputs, options: SamplingOptions, *, salt: bytes = b"") -> int:
        return self.network.add(inputs, options, salt=salt)

    def stop(self, request_id: int) -> bool:
        return self.network.stop(request_id)

    def abort(self, request_id: int) -> bool:
        return self.network.abort(request_id)

    def load(self) -> Load:
        return self.network.load()

    def step(self) -> list[Output]:
        self.steps -= 1
        if self.steps < 0:
            raise RuntimeError("out of cheese")
        return self.network.step()


def test_many_threads_are_told_what_the_network_says_to_each_alone(
    assistant: VideoAssistant, reference: VideoAssistant
) -> None:
    alone = {}
    for last in range(30, 38):
        with EngineThread(reference.network) as thread:
            alone[last] = heard = Heard()
            thread.submit(prompt(last), up_to(6), heard)
            heard.end()
    together = {last: Heard() for last in alone}
    with EngineThread(assistant.network) as thread:
        askers = [
            threading.Thread(target=thread.submit, args=(prompt(last), up_to(6), heard))
            for last, heard in together.items()
        ]
        for asker in askers:
            asker.start()
        for heard in together.values():
            assert heard.end().finish == "length"
    assert {last: heard.ids for last, heard in together.items()} == {
        last: heard.ids for last, heard in alone.items()
    }


def test_hundreds_of_requests_may_be_under_way(thread: EngineThread) -> None:
    heard = [Heard() for _ in range(300)]
    for number, one in enumerate(heard):
        thread.submit(prompt(20 + number % 50), up_to(2), one)
    assert {one.end().finish for one in heard} == {"length"}
    assert {len(one.ids) for one in heard} == {2}


def test_a_request_is_aborted_in_mid_answer(thread: EngineThread) -> None:
    heard, beside = Heard(), Heard()
    ticket = thread.submit(prompt(30), up_to(3000), heard)
    thread.submit(prompt(31), up_to(20), beside)
    assert heard.first.wait(SOON_S)
    ticket.abort()
    assert heard.end().finish == "abort"
    assert 0 < len(heard.ids) < 3000
    assert beside.end().finish == "length"
    ticket.abort()  # once more, after the end: nothing happens
    ticket.stop()
    assert thread.report().running == 0


def test_a_request_is_stopped_by_the_one_who_hears_it(thread: EngineThread) -> None:
    tickets: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
    heard = Heard()

    def tell(output: Output) -> None:
        heard(output)
        if output.completion_tokens == 5 and output.finish is None:
            tickets.get(timeout=SOON_S).stop()

    tickets.put(thread.submit(prompt(30), up_to(3000), tell))
    assert heard.end().finish == "stop"
    assert len(heard.ids) == 5


def test_a_request_aborted_at_once_is_still_told(thread: EngineThread) -> None:
    heard = Heard()
    thread.submit(prompt(30), up_to(3000), heard).abort()
    assert heard.end().finish == "abort"


def test_each_of_several_answers_has_an_end(thread: EngineThread) -> None:
    heard = Heard()
    thread.submit(prompt(30), up_to(4, n=3, temperature=1.0), heard)
    assert sorted(heard.end().index for _ in range(3)) == [0, 1, 2]
    assert [sum(len(o.ids) for o in heard.outputs if o.index == index) for index in range(3)] == [4, 4, 4]


def test_a_refused_request_is_told_why(thread: EngineThread) -> None:
    heard = Heard()
    ticket = thread.submit(prompt(30, length=5000), up_to(1), heard)
    told = heard.end()
    assert told.finish == "error"
    assert told.error is not None
    assert "5001 tokens needed" in told.error
    assert told.prompt_tokens == 5000
    assert isinstance(ticket.refusal, CapacityError)
    assert thread.alive


def test_draining_finishes_what_runs_and_takes_nothing_new(assistant: VideoAssistant) -> None:
    thread = EngineThread(assistant.network)
    heard = [Heard() for _ in range(5)]
    for one in heard:
        thread.submit(prompt(30), up_to(8), one)
    thread.close(drain=True)
    assert [one.end().finish for one in heard] == ["length"] * 5
    assert not thread.alive
    with pytest.raises(LlavaNextVideoError, match="make another one"):
        thread.submit(prompt(30), up_to(8), Heard())


def test_closing_aborts_what_runs(assistant: VideoAssistant) -> None:
    thread = EngineThread(assistant.network)
    heard = [Heard() for _ in range(5)]
    for one in heard:
        thread.submit(prompt(30), up_to(3000), one)
    thread.close()
    assert [one.end().finish for one in heard] == ["abort"] * 5
    thread.close()


def test_a_crash_of_the_network_is_told_to_every_request(
    assistant: VideoAssistant, caplog: pytest.LogCaptureFixture
) -> None:
    thread = EngineThread(Brittle(assistant.network, steps=4))
    heard = [Heard() for _ in range(5)]
    for one in heard:
        thread.submit(prompt(30), up_to(60, n=2), one)
    for one in heard:
        for _ in range(2):
            told = one.end()
            assert told.finish == "error"
            assert told.error == "the engine crashed (RuntimeError: out of cheese); start it again"
    assert not thread.alive
    with pytest.raises(LlavaNextVideoError, match="out of cheese"):
        thread.submit(prompt(30), up_to(8), Heard())
    assert thread.report().running <= 10  # the figures are still there
    thread.close()
    assert "the network crashed" in caplog.text
    with EngineThread(assistant.network) as after:  # what the crash left behind harms nobody
        after.submit(prompt(30), up_to(2), again := Heard())
        assert again.end().finish == "length"


def test_a_listener_that_raises_loses_its_own_request_only(
    thread: EngineThread, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(output: Output) -> None:
        raise RuntimeError("the event loop is closed")

    beside = Heard()
    thread.submit(prompt(30), up_to(3000), gone)
    thread.submit(prompt(31), up_to(20), beside)
    assert beside.end().finish == "length"
    assert thread.report().running == 0
    assert "did not take an output" in caplog.text


def test_the_report_counts_what_was_done(thread: EngineThread) -> None:
    before = thread.report()
    heard = Heard()
    thread.submit(prompt(30), up_to(7), heard)
    heard.end()
    after = thread.report()
    assert after.generated_tokens - before.generated_tokens == 7
    assert after.finished - before.finished == 1
    assert (after.waiting, after.running) == (0, 0)
    assert after.pages > after.pages_cached


def test_the_reference_network_is_owned_the_same_way(reference: VideoAssistant) -> None:
    with EngineThread(reference.network) as thread:
        first, second, heard = thread.report(), Heard(), Heard()
        ticket = thread.submit(prompt(30), up_to(3000), heard)
        thread.submit(prompt(31), up_to(3), second)
        assert heard.first.wait(SOON_S)
        ticket.abort()
        assert heard.end().finish == "abort"
        assert second.end().finish == "length"
        report = thread.report()
    assert report.finished - first.finished == 2
    assert report.prompt_tokens - first.prompt_tokens == 24


def test_an_idle_thread_uses_no_processor_time(thread: EngineThread) -> None:
    heard = Heard()
    thread.submit(prompt(30), up_to(2), heard)
    heard.end()
    started = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - started < 0.1


@pytest.mark.slow
def test_a_program_that_ends_in_mid_answer_ends_well(tiny_checkpoint: Path) -> None:
    script = (
        "import sys, threading\n"
        "from llava_next_video import VideoAssistant\n"
        "from llava_next_video.assistant import EngineThread\n"
        "from llava_next_video.engine import SamplingOptions\n"
        "from llava_next_video.inputs import ModelInputs\n"
        "thread = EngineThread(VideoAssistant.load(sys.argv[1]).network)\n"
        "begun = threading.Event()\n"
        "options = SamplingOptions(max_new_tokens=3000, ignore_eos=True)\n"
        "thread.submit(ModelInputs(ids=(1, 2, 3)), options, lambda output: begun.set())\n"
        "assert begun.wait(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_checkpoint)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr


def test_a_prompt_is_reused_only_under_the_salt_that_it_came_with(thread: EngineThread) -> None:
    def cached(salt: bytes) -> int:
        heard = Heard()
        thread.submit(prompt(7, length=200), up_to(1), heard, salt=salt)
        return heard.end().cached_tokens

    assert cached(b"a") == 0
    assert cached(b"a") > 0
    assert cached(b"b") == 0
