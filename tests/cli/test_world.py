"""The toy world from the command line."""

import sys
from pathlib import Path

import pytest

from llava_next_video.cli import run


def test_an_unknown_family_of_questions_is_named_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["world", "write", str(tmp_path / "out"), "--families", "choice, sizes"]
    monkeypatch.setattr(sys, "argv", ["llava-next-video", *words])
    assert run() == 1
    refused = capsys.readouterr().err
    assert "--families names 'sizes'; known: colour, shape," in refused
    assert not (tmp_path / "out").exists()
