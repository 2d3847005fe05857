"""Write docs/map.md and docs/commands.md from the code; `--check` only says whether they are current."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "llava_next_video"
NOTE = "<!-- Written by docs/generate.py (make docs); edit the code instead. -->\n"


def map_of_files() -> str:
    """Every module with the sign over its door."""
    lines = [NOTE, "# Map", "", "| file | what lives there |", "|---|---|"]
    for path in sorted(PACKAGE.rglob("*.py")):
        sign = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        lines.append(f"| `{path.relative_to(PACKAGE)}` | {sign} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The help text of every verb, in the order of `--help`."""
    lines = [NOTE, "# Commands"]
    for words in _verbs():
        lines += ["", f"## `{' '.join(['llava-next-video', *words])}`", "", "```text", _help(words), "```"]
    return "\n".join(lines) + "\n"


def _verbs() -> list[list[str]]:
    from llava_next_video.cli import app

    verbs: list[list[str]] = [[]]
    for command in app.registered_commands:
        verbs.append([command.name or command.callback.__name__.replace("_", "-")])
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            verbs.append([group.name, command.name or command.callback.__name__.replace("_", "-")])
    return verbs


def _help(words: list[str]) -> str:
    plain = os.environ | {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    run = subprocess.run(
        [sys.executable, "-m", "llava_next_video.cli", *words, "--help"],
        capture_output=True,
        text=True,
        env=plain,
        check=True,
    )
    return "\n".join(line.rstrip() for line in run.stdout.splitlines()).strip("\n")


def main() -> int:
    """Write the pages, or with `--check` name those that are out of date."""
    pages = {ROOT / "docs" / "map.md": map_of_files(), ROOT / "docs" / "commands.md": commands()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
        return bool(stale)
    for path in stale:
        path.write_text(pages[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
