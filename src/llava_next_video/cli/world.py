"""Write pieces of the toy world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.world.wordings import Family

world = typer.Typer(help="Write pieces of the toy world: shapes that move, and the truth about them.")


@world.command(epilog="Example: `llava-next-video world write /tmp/world --clips 100 --images 50 --seed 1`")
def write(
    out: Annotated[Path, typer.Argument(help="Folder to write world.json, videos/ and images/ into.")],
    clips: Annotated[int, typer.Option(help="Clips to film.")] = 100,
    images: Annotated[int, typer.Option(help="Pictures to draw.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = 0,
    turns: Annotated[int, typer.Option(help="Questions about each medium, at most.")] = 6,
    things: Annotated[
        int | None, typer.Option(help="Objects in each scene, 0 to 3.", show_default="1 to 3, few empty")
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            help="Only questions of these families, e.g. choice,size; scenes that allow none are left out.",
            show_default="all",
        ),
    ] = None,
) -> None:
    """Write clips and pictures with questions and answers, in LLaVA's JSON format."""
    from rich.console import Console
    from rich.progress import Progress

    from llava_next_video.world import write_world

    wanted = None if families is None else _families(families)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("writing", total=clips + images)
        path = write_world(
            out,
            clips=clips,
            images=images,
            seed=seed,
            turns=turns,
            things=things,
            families=wanted,
            told=lambda done: progress.update(task, completed=done),
        )
    typer.echo(path)


@world.command(epilog="Example: `llava-next-video world film scene.mp4 --seed 7 --things 2`")
def film(
    out: Annotated[Path, typer.Argument(help="File to write (.mp4 or .webm).")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same scene.")] = 0,
    things: Annotated[
        int | None, typer.Option(help="Objects in the scene, 0 to 3.", show_default="1 to 3, few empty")
    ] = None,
) -> None:
    """Film one scene, and print the truth about it."""
    from llava_next_video.world import caption
    from llava_next_video.world import film as take
    from llava_next_video.world.write import clip_scene

    scene, how, _ = clip_scene(seed, 0, things)
    take(scene, out, how)
    typer.echo(caption(scene, detailed=True))


def _families(text: str) -> frozenset[Family]:
    """The families of questions that a list names."""
    from llava_next_video.world.wordings import Family

    names, known = [name.strip() for name in text.split(",")], get_args(Family)
    for name in names:
        if name not in known:
            raise ConfigError(f"--families names {name!r}; known: {', '.join(known)}")
    return frozenset(cast("Family", name) for name in names)
