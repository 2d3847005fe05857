"""`ask --server` and `chat`: the terminal's way to a server, or to several."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import Running, serving, write_film

from llava_next_video import VideoAssistant
from llava_next_video.cli import run
from llava_next_video.cli.session import Session
from llava_next_video.cli.talkers import Local, Remote
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.serve.client import Attached, Said, ServerClient, Told
from llava_next_video.serve.routing import ranked


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llava-next-video", *map(str, words)])
        code = run()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_ask_gives_the_servers_answer_as_it_gives_its_own(
    command, load: Callable[[], VideoAssistant], server: Running, clip: Path
) -> None:
    asked = ["ask", clip, "What is in the video?", "--frames", 6, "--max-new-tokens", 8]
    here = command(*asked)
    there = command(*asked, "--server", server.url)
    assert there[:2] == here[:2] == (0, here[1])
    told = json.loads(command(*asked, "--json", "--server", server.url)[1])
    assert told["answer"] == here[1].strip()
    assert len(told["media"][0]["frame_times_s"]) == 6


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--server", "http://127.0.0.1:9"], "no server answers there"),
        (["--server", "127.0.0.1:9"], "expected a URL such as"),
        (["--server", "{url}", "--model", "x"], "--model is for a model that is loaded here"),
        (["--server", "{url}", "--sampler", "linspace"], "linspace is not known to servers"),
        (["--server", "{url}", "--frames", "65"], "looks at 64 frames"),
        (["--server", "{url}/nowhere"], "nothing at /nowhere"),
    ],
)
def test_what_a_server_cannot_do_is_one_sentence(
    command, server: Running, clip: Path, flags: list[str], says: str
) -> None:
    words = [flag.replace("{url}", server.url) for flag in flags]
    code, out, err = command("ask", clip, "What?", *words)
    assert (code, out) == (1, "")
    assert re.search(says, err), err


@pytest.fixture(scope="module")
def pair(load: Callable[[], VideoAssistant]) -> Iterator[tuple[Running, Running]]:
    """Two servers of the same model."""
    with serving(load()) as first, serving(load()) as second:
        yield first, second


@pytest.mark.slow
def test_questions_about_one_video_go_to_the_replica_that_has_it(
    pair: tuple[Running, Running], tmp_path: Path
) -> None:
    client = ServerClient([one.url for one in pair])
    clips = [Attached.of(write_film(tmp_path, seed)) for seed in range(6)]

    def ask(clip: Attached, question: str) -> Told:
        *_, told = client.stream([Said(role="user", text=question, media=(clip,))], {"max_tokens": 1})
        assert isinstance(told, Told)
        return told

    for clip in clips:
        ask(clip, "What is it?")
    frames = [one.desk.bridge.thread.report().frames for one in pair]
    # Each clip was seen once, by one of the two; neither has them all.
    assert sum(frames) == 8 * len(clips)
    assert all(frames)
    for clip in clips:
        assert ask(clip, "Which colour?").usage["prompt_tokens_details"]["cached_tokens"] >= 64
    assert [one.desk.bridge.thread.report().frames for one in pair] == frames


def test_when_a_server_goes_only_its_own_videos_move() -> None:
    servers = [f"http://{name}" for name in "abcde"]
    keys = [str(number) for number in range(200)]
    before = {key: ranked(key, servers)[0] for key in keys}
    shares = [list(before.values()).count(server) for server in servers]
    # 40 each, give or take four standard deviations of a fair draw: sqrt(200 x 0.2 x 0.8) = 5.7.
    assert all(abs(share - 40) < 23 for share in shares)
    after = {key: ranked(key, servers[1:])[0] for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != servers[0])


@pytest.fixture
def session(server: Running) -> Session:
    return Session(Remote([server.url], None), frames=8, system=None, options={"max_new_tokens": 6})


def test_a_session_keeps_what_was_said_until_it_is_cleared(
    session: Session, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.take(f"'{clip}' What shape is it?")
    assert [turn.role for turn in session.turns] == ["user", "assistant"]
    assert [one.source for one in session.turns[0].media] == [str(clip)]
    said = session.turns[1].text
    session.take("And which colour?")
    session.take("/retry")
    assert [turn.role for turn in session.turns] == ["user", "assistant"] * 2
    session.take(f"/save {tmp_path / 'talk.json'}")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert [turn["text"] for turn in saved][:2] == ["What shape is it?", said]
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == said
    assert re.search(r"\d+ tokens, [\d.]+ a second, first after", err)
    session.take("!clear")
    assert session.turns == []


def test_settings_frames_and_pictures_are_taken_from_commands(
    session: Session, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.take(f"/video {clip} 3")
    session.take("/frames")
    drawn = capsys.readouterr().err
    assert drawn.count(" s ") >= 3
    assert "▀" in drawn
    session.take("/set temperature 0.5")
    session.take("/set fps 2")
    session.take("/system Be brief.")
    assert (session.options["temperature"], session.sampling.per_second, session.system) == (
        0.5,
        2,
        "Be brief.",
    )
    for wrong in ("/set tempo 1", "/set frames many", "/retry", "/nothing", "/video /absent.mp4", "/image"):
        with pytest.raises(LlavaNextVideoError):
            session.take(wrong)


def test_a_refused_question_is_not_said_and_its_clip_stays(session: Session, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing")
    session.take(f"/video {broken}")
    with pytest.raises(LlavaNextVideoError):
        session.take("What is it?")
    assert (session.turns, len(session.attached)) == ([], 1)


@pytest.mark.slow
def test_a_model_in_the_same_process_says_the_same(
    load: Callable[[], VideoAssistant], session: Session, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Session(Local(load()), frames=8, system=None, options={"max_new_tokens": 6})
    for one in (session, own):
        one.attach(str(clip))
        one.take("What shape is it?")
        one.take("And which colour?")
    assert [turn.text for turn in own.turns] == [turn.text for turn in session.turns]


@pytest.mark.slow
def test_control_c_stops_the_answer_and_not_the_program(server: Running) -> None:
    above, below = pty.openpty()
    words = ["chat", "--server", server.url, "--max-new-tokens", "1500"]
    program = subprocess.Popen(
        [sys.executable, "-m", "llava_next_video.cli", *words],
        stdin=below, stdout=below, stderr=below, start_new_session=True,
        # Tests that a shell runs in the background ignore Ctrl-C, and what they start would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(below)
    heard = ""

    def wait_for(text: str) -> None:
        nonlocal heard
        until = time.monotonic() + 60
        while text not in heard:
            ready, _, _ = select.select([above], [], [], until - time.monotonic())
            assert ready, heard
            heard += os.read(above, 4096).decode(errors="replace")

    wait_for("> ")
    os.write(above, b"/set ignore_eos true\nDescribe a video.\n")
    while not server.door.under_way:
        time.sleep(0.01)
    time.sleep(0.05)
    os.kill(program.pid, signal.SIGINT)
    wait_for("(stopped)")
    assert server.rests_within(2)
    os.write(above, b"/bye\n")
    assert program.wait(30) == 0
    os.close(above)
