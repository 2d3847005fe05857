"""The conversion verbs: notes on stderr, mistakes in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.convert.conftest import write_original

from llava_next_video.cli import run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llava-next-video", "convert", *map(str, words)])
        code = run()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_what_was_decided_is_told_on_stderr(command, tmp_path: Path) -> None:
    folder = write_original(tmp_path / "release")
    code, out, err = command("original", folder, tmp_path / "hub", "--template", "vicuna", "--rope-factor", 2)
    assert (code, out) == (0, "")
    assert "note: a llama of 2 layers x 32 with clip, which is no published checkpoint\n" in err
    assert "note: positions stretched by 2\n" in err
    assert err.splitlines()[-1].startswith(f"{tmp_path / 'hub'}: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--newline", "row"], "unknown newline 'row'; choose one of no_token, one_token, frame, grid"),
        (["--pool", "between"], "unknown pool 'between'; choose one of before, after"),
        (["--pool-mode", "median"], "unknown pool-mode 'median'; choose one of average, max"),
        (["--rope-factor", "0.5"], "rope factor 0.5 is below 1"),
        (["--shard-gb", "0"], "--shard-gb is 0; give a size above 0"),
        ([], "its chat template is not known; give --template"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    command, tmp_path: Path, options: list[str], message: str
) -> None:
    folder = write_original(tmp_path / "release")
    template = ["--template", "vicuna"] if options else []
    code, out, err = command("original", folder, tmp_path / "hub", *template, *options)
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


def test_known_checkpoints_are_listed_with_their_sources(command) -> None:
    code, out, _ = command("known")
    assert code == 0
    assert "lmms-lab/LLaVA-NeXT-Video-32B-Qwen: qwen2 of 64 layers x 5120 with clip\n  template qwen;" in out
    assert "LLaVA-NeXT issue 54" in out
    on_hub = "  on the hub: llava-hf/LLaVA-NeXT-Video-34B-hf, template chatml, <video> 64003, <image> 64004\n"
    assert on_hub in out
