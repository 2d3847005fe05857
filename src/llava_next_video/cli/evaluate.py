"""Examine a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from llava_next_video.cli.ask import load_assistant

evaluate = typer.Typer(help="Examine a model.", no_args_is_help=True)


@evaluate.command(epilog="Example: `llava-next-video evaluate world --clips 200`")
def world(
    clips: Annotated[int, typer.Option(help="Fresh clips to film and ask about.")] = 200,
    images: Annotated[int, typer.Option(help="Fresh pictures to draw and ask about.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the scenes; training uses others.")] = 990_000,
    frames: Annotated[int, typer.Option(help="Frames to look at in each clip.")] = 8,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint folder, or name on the hub.", show_default="a tiny one that knows moving shapes"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the scores here (JSON).", show_default="nowhere")
    ] = None,
) -> None:
    """Ask everything about scenes of the toy world; print a table of exact matches with 95 % intervals."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from llava_next_video.evaluate import examine_world

    assistant = load_assistant(model)
    words = SpinnerColumn(), TextColumn("{task.completed} answers")
    console = Console(stderr=True)
    with Progress(*words, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("asking", total=None)
        report = examine_world(
            assistant,
            clips=clips,
            pictures=images,
            seed=seed,
            frames=frames,
            told=lambda done: progress.update(task, completed=done),
        )
    typer.echo(report.table())
    if out is not None:
        out.write_text(json.dumps(report.as_record(), indent=1) + "\n")
