"""Train a model, and check data before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llava_next_video.cli.ask import quiet
from llava_next_video.cli.options import Frames

if TYPE_CHECKING:
    from llava_next_video.train.recipe import Stage

train = typer.Typer(help="Train a model, and check data before it.", no_args_is_help=True)

RecipeFile = Annotated[Path, typer.Argument(help="Recipe: a TOML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting over the recipe's: learning.lr=1e-4.", show_default="none"),
]


@train.command(epilog="Example: `llava-next-video train align runs/align.toml --set learning.steps=100`")
def align(recipe: RecipeFile, settings: Settings = None) -> None:
    """Teach the projector alone to speak the language model's language; prints the model's folder."""
    _run(recipe, "align", settings)


@train.command(epilog="Example: `llava-next-video train sft runs/sft.toml --set learning.lr=1e-5`")
def sft(recipe: RecipeFile, settings: Settings = None) -> None:
    """Teach a model from conversations about images and videos; prints the model's folder.

    A run that was interrupted goes on where its last checkpoint was.
    """
    _run(recipe, "sft", settings)


@train.command(epilog="Example: `llava-next-video train dpo runs/dpo.toml --set dpo.beta=0.1`")
def dpo(recipe: RecipeFile, settings: Settings = None) -> None:
    """Teach a model to prefer the chosen answer of each pair to the rejected one; prints the model's folder.

    The recipe's [dpo] has loss (sigmoid, hinge, ipo, kto_pair), beta, label_smoothing, weight, sft_weight,
    reference (auto, copy, adapter, cached) and reference_model. `prefer` makes pairs.
    """
    _run(recipe, "dpo", settings)


@train.command(epilog="Example: `llava-next-video train check data.json --model DIR --root media/`")
def check(
    data: Annotated[Path, typer.Argument(help="Samples, in any format that training reads.")],
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub name to check against.")],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that media paths are relative to.", show_default="the data file's"),
    ] = None,
    frames: Frames = 8,
    workers: Annotated[int, typer.Option(help="Media opened at once.")] = 2,
) -> None:
    """Open every medium, count every token, and list what training would drop (then exit code 1)."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from llava_next_video.train.checking import check_data
    from llava_next_video.train.recipe import DataSettings

    quiet()
    words = SpinnerColumn(), TextColumn("{task.completed} samples")
    console = Console(stderr=True)
    with Progress(*words, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("checking", total=None)
        report = check_data(
            data,
            model,
            DataSettings(frames=frames),
            root=root,
            workers=workers,
            progress=lambda done: progress.update(task, completed=done),
        )
    typer.echo(report.text)
    if report.problems:
        raise typer.Exit(1)


@train.command(
    epilog="Example: `llava-next-video train merge out/lora/final out/merged --model out/sft/final`"
)
def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter that `train` or PEFT saved.")],
    output: Annotated[Path, typer.Argument(help="New folder for the merged checkpoint.")],
    model: Annotated[
        str | None,
        typer.Option(help="Its base: checkpoint folder or hub name.", show_default="what the adapter names"),
    ] = None,
) -> None:
    """Write a checkpoint that needs no adapter any more; prints its folder.

    One file of weights at a time is in memory. A base that the adapter was not trained on is refused.
    """
    from llava_next_video.train.merging import merge_adapter

    quiet()
    typer.echo(merge_adapter(adapter, output, base=model))


def _run(recipe: Path, stage: Stage, settings: list[str] | None) -> None:
    from llava_next_video.train.run import run_training

    quiet()
    trained = run_training(recipe, stage, settings or (), report=lambda line: typer.echo(line, err=True))
    typer.echo(trained.folder)
