"""Generated pages are current, and what the README and the page on long videos show works."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from llava_next_video import ClipLayout, LlavaNextVideoConfig, RopeScaling, SlowFast
from llava_next_video.cli import run
from llava_next_video.model.context import chosen_rope

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
LONG_VIDEOS = (ROOT / "docs" / "long-videos.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README + LONG_VIDEOS, re.M | re.S)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, square_clip: Path, tiny_checkpoint: Path) -> Path:
    """A folder with the clips that the README names, and a checkpoint under the name that it asks for."""
    for name in ("clip.mp4", "a.mp4", "b.mp4"):
        shutil.copy(square_clip, tmp_path / name)
    (tmp_path / "llava-hf").mkdir()
    (tmp_path / "llava-hf" / "LLaVA-NeXT-Video-7B-hf").symlink_to(tiny_checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_map_and_the_command_reference_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "docs" / "generate.py"), run_name="__main__")
    assert ended.value.code == 0


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[-1][:60])
@pytest.mark.slow
def test_the_python_that_is_shown_runs(code: str, desk: Path) -> None:
    exec(compile(code, "page.md", "exec"), {})


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("llava-next-video ")]


@pytest.mark.slow
def test_the_commands_that_are_shown_run(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commands()
    for command in commands():
        words = shlex.split(command.replace("/tmp/", f"{desk}/"))
        monkeypatch.setattr(sys, "argv", words)
        assert run() == 0, command


def test_the_table_of_long_videos_is_what_is_counted() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", LONG_VIDEOS, re.M)
    assert [int(frames) for frames, _ in rows] == [8, 16, 32, 64, 128]
    config = LlavaNextVideoConfig(text_config={"model_type": "llama", "max_position_embeddings": 4096})
    wishes = [
        ClipLayout(),
        ClipLayout(slow_fast=SlowFast(every=4)),
        ClipLayout(slow_fast=SlowFast(every=10)),
        ClipLayout(newline="frame"),
        ClipLayout(newline="grid"),
    ]
    for frames, told in rows:
        counts = [config.video_layout(int(frames), wish).tokens for wish in wishes]
        ropes = [chosen_rope(config, RopeScaling(kind="auto"), count + 64 + 256) for count in counts[:3]]
        factors = [1.0 if rope is None else rope.factor for rope in ropes]
        assert [float(cell) for cell in told.split("|")] == [*counts, *factors]


def test_every_page_that_the_readme_links_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_target_of_the_makefile_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
