"""What the page on conversions shows works, on tiny checkpoints in the original's layout."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from tests.convert.conftest import write_original
from tests.convert.hub import open_hub
from tests.convert.test_image import PICTURES, image_checkpoint

from llava_next_video.cli import run

PAGE = (Path(__file__).parent.parent.parent / "docs" / "convert.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, square_clip: Path) -> Path:
    """A folder with the clip and the checkpoints that the page names."""
    shutil.copy(square_clip, tmp_path / "clip.mp4")
    write_original(tmp_path / "my-release")
    image_checkpoint(tmp_path / "my-pictures", spare=8, template=PICTURES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.partition("  #")[0].strip() for line in "".join(blocks("sh")).splitlines()]
    with open_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        for line in lines:
            monkeypatch.setattr(sys, "argv", shlex.split(line.replace("/tmp/", f"{desk}/")))
            assert run() == 0, line
        assert "model.safetensors" in hub.files
    assert len(lines) == 7


@pytest.mark.slow
def test_the_python_runs(desk: Path) -> None:
    (code,) = blocks("python")
    exec(compile(code, "convert.md", "exec"), {})
    assert (desk / "from-python" / "model.safetensors").is_file()
