"""`llava-next-video bench` measures the engine."""

import json
import sys
from pathlib import Path

import pytest

from llava_next_video.cli import run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path):
    """Runs a small load; gives exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        small = "--videos", 2, "--questions", 2, "--frames", 2, "--max-new-tokens", 3, "--device", "cpu"
        given = ["llava-next-video", "bench", "--model", tiny_checkpoint, *small, *words]
        monkeypatch.setattr(sys, "argv", list(map(str, given)))
        code = run()
        return code, *capsys.readouterr()

    return call


def test_json_has_the_load_and_the_figures(command) -> None:
    code, out, _ = command("--json", "--quantize", "int8", "--rate", 100)
    told = json.loads(out)
    assert code == 0
    assert told["load"]["per_second"] == 100
    assert told["figures"]["requests"] == 4
    assert told["figures"]["video_hits"] == 0.5
    assert set(told["figures"]["first_token"]) == {"p50_s", "p99_s"}


def test_the_table_names_every_figure(command) -> None:
    code, out, _ = command()
    assert code == 0
    for name in ("throughput", "first token", "each token", "prompt tokens found", "share of the roofline"):
        assert name in out


def test_an_impossible_load_is_one_sentence(command) -> None:
    code, _, err = command("--rate", -1)
    assert code == 1
    assert "the arrival rate is -1.0" in err
