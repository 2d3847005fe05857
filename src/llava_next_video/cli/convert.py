"""Make checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava_next_video.errors import ConfigError

convert = typer.Typer(help="Make checkpoints.", no_args_is_help=True)


@convert.command(epilog="Example: `llava-next-video convert random --preset tiny /tmp/tiny`")
def random(
    out: Annotated[Path, typer.Argument(help="Folder to write; it must be empty or absent.")],
    preset: Annotated[str, typer.Option(help="Shape of the network: tiny, mid or 7b.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="Number format of the weights: float32, bfloat16, float16.")] = (
        "float32"
    ),
) -> None:
    """Write a checkpoint with random weights, a tokenizer and processor files, in the hub layout."""
    from llava_next_video.convert import PRESETS, write_random

    shapes = {str(name): shape for name, shape in PRESETS.items()}
    if preset not in shapes:
        raise ConfigError(f"unknown preset {preset!r}; known: {', '.join(shapes)}")
    written = write_random(out, shapes[preset], seed=seed, dtype=dtype)
    typer.echo(f"{out}: {written.parameters:,} random parameters, {written.size_bytes:,} bytes", err=True)
