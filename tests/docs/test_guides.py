"""The guides: their code runs, their links lead somewhere, and the messages they explain are said."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from llava_next_video.checkpoint_name import default_checkpoint
from llava_next_video.cli import run

ROOT = Path(__file__).parent.parent.parent
GUIDES = ("ask", "caption", "train", "prefer", "coming-from")
CHINESE = ROOT / "README.zh.md"


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and code of each block, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, square_clip: Path, tiny_checkpoint: Path) -> Path:
    """A folder with what the guides name: clips, recipes, and checkpoints under the names of large ones."""
    (tmp_path / "videos").mkdir()
    for name in ("clip.mp4", "a.mp4", "b.mp4", "videos/one.mp4", "videos/two.mp4"):
        shutil.copy(square_clip, tmp_path / name)
    for place in ("llava-hf", "runs/out/sft"):
        (tmp_path / place).mkdir(parents=True)
    for recipe in (ROOT / "runs").glob("*.toml"):
        shutil.copy(recipe, tmp_path / "runs")
    for size in ("7B", "34B"):
        (tmp_path / "llava-hf" / f"LLaVA-NeXT-Video-{size}-hf").symlink_to(tiny_checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("guide", GUIDES)
def test_the_code_of_a_guide_runs_in_its_order(
    guide: str, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if guide == "prefer":
        (desk / "runs/out/sft/final").symlink_to(default_checkpoint())
    names: dict[str, object] = {}
    ran = 0
    for language, code in blocks((ROOT / "docs" / f"{guide}.md").read_text()):
        if language == "python":
            exec(compile(code, guide, "exec"), names)
            ran += 1
        for line in code.replace("\\\n", " ").splitlines() if language == "sh" else ():
            assert line.startswith("llava-next-video "), line
            monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
            assert run() == 0, line
            ran += 1
    assert ran


def test_the_settings_that_the_training_guide_shows_are_read() -> None:
    import tomllib

    from llava_next_video.train.recipe import parse_recipe

    code = next(
        code for language, code in blocks((ROOT / "docs" / "train.md").read_text()) if language == "toml"
    )
    recipe = parse_recipe({"model": "m", "output": "o", **tomllib.loads(code)}, Path("/nowhere"))
    assert [source.take.which for source in recipe.data.sources] == ["all", "random"]


def templates() -> list[str]:
    """Every text in the source, with `...` for what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_message_that_is_explained_is_said() -> None:
    messages = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    assert len(messages) > 25
    said = set(templates())
    assert [message for message in messages if message not in said] == []


def test_every_link_of_the_guides_leads_to_a_file() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), CHINESE]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)", page.read_text())
        if "://" not in link
    ]
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_chinese_readme_has_the_code_and_the_sections_of_the_english_one() -> None:
    english, chinese = (ROOT / "README.md").read_text(), CHINESE.read_text()

    def bare(text: str) -> list[tuple[str, str]]:
        return [(language, re.sub(r" +#.*", "", code)) for language, code in blocks(text)]

    assert bare(chinese) == bare(english)
    depth = [[len(marks) for marks in re.findall(r"^(#+) ", text, re.M)] for text in (english, chinese)]
    assert depth[0] == depth[1]
    assert len(re.findall(r"[\u4e00-\u9fff]", chinese)) > 1000
