"""How far a run over many videos is, on stderr."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from llava_next_video.caption import Figures

LINE_EVERY_S = 5.0


@contextmanager
def figures_told() -> Iterator[Callable[[Figures], None]]:
    """A bar on a terminal; elsewhere a line of JSON every few seconds, and one at the end."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        last_s = time.monotonic()

        def line(figures: Figures) -> None:
            nonlocal last_s
            if figures.over or time.monotonic() - last_s >= LINE_EVERY_S:
                last_s = time.monotonic()
                typer.echo(json.dumps(figures.as_record()), err=True)

        yield line
        return
    progress, words = Progress(BarColumn(bar_width=None), MofNCompleteColumn(), console=console), Text()
    task = progress.add_task("captioning", total=None)

    def bar(figures: Figures) -> None:
        progress.update(task, total=figures.total, completed=figures.total - figures.left)
        words.plain = figures.in_words()

    with Live(Group(progress, words), console=console):
        yield bar
