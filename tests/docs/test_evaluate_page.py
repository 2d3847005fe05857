"""What docs/evaluate.md shows works; its lmms-eval commands run in tests/evaluate/test_referee.py."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from tests.evaluate.toy_sets import film_toys, write_set
from tests.judging.judge_server import JudgeServer

from llava_next_video.cli import run
from llava_next_video.evaluate import BENCHMARKS
from llava_next_video.evaluate.parsers import PARSERS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "evaluate.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def commands() -> list[str]:
    """Our commands in order, without comments; those of the server's part need lmms-eval."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    ours = [line.partition("  #")[0] for line in lines if line.startswith("llava-next-video evaluate ")]
    return [line.replace(" & wait", "").rstrip("& ") for line in ours]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables and videos that the page names."""
    desk = tmp_path_factory.mktemp("desk")
    toys = film_toys(desk / "videos", clips=2, each=1)
    for number in range(2):
        (desk / "videos" / f"video{number}.mp4").symlink_to(desk / "videos" / f"toy{number}.mp4")
    for name in ("videomme", "msrvttqa"):
        write_set(name, toys, desk)
    return desk


def test_the_page_knows_every_benchmark_and_every_protocol_of_video_mme() -> None:
    short = {
        name: name.removeprefix("videochatgpt") if name != "videochatgpt-generic" else name
        for name in BENCHMARKS
    }
    assert [name for name, told in short.items() if f"`{told}`" not in PAGE] == []
    for protocol in BENCHMARKS["videomme"].protocols:
        assert re.search(rf"\| `{protocol.name}`.*\| `{protocol.parser}` \|", PAGE)
    assert "Five of the six parsers" in PAGE
    assert len(PARSERS) == 6


@pytest.mark.slow
def test_the_pages_commands_run_in_their_order(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    judge = JudgeServer()
    judge.reply = lambda prompt: "{'pred': 'yes', 'score': 5}"
    try:
        for command in commands():
            words = shlex.split(command.replace("http://127.0.0.1:8001/v1", judge.url))
            monkeypatch.setattr(sys, "argv", words)
            assert run() == 0, (command, capsys.readouterr().err)
    finally:
        judge.close()
    printed = capsys.readouterr().out
    assert "| accuracy | all |  | 100.00 %" in printed
    assert len(judge.asked) == 2


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=["python"])
def test_the_pages_python_runs(code: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    exec(compile(code, "evaluate.md", "exec"), {})
