"""Talk about clips and pictures in the terminal."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from llava_next_video.cli.ask import load_assistant
from llava_next_video.cli.remote import ApiKey, Servers


def chat(
    clip: Annotated[
        Path | None, typer.Argument(help="A clip or picture to begin with.", show_default="none")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint folder, or name on the hub.", show_default="a tiny one that knows moving shapes"
        ),
    ] = None,
    server: Servers = None,
    api_key: ApiKey = None,
    frames: Annotated[int, typer.Option(help="Frames to look at in each clip.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    system: Annotated[
        str | None, typer.Option(help="What to tell the model first.", show_default="nothing")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Torch device.", show_default="GPU if any")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="what is fastest here")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: 8-bit weights; on a GPU also fp8 and int4.", show_default="off")
    ] = None,
) -> None:
    """Chat about clips and pictures; `/help` lists the commands, Ctrl-C stops an answer, `/bye` ends."""
    from llava_next_video.cli.session import Session
    from llava_next_video.cli.talkers import Local, Remote, Talker

    talker: Talker
    if server:
        talker = Remote(server, api_key)
    else:
        talker = Local(load_assistant(model, device=device, dtype=dtype, quantize=quantize))
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history
    options: dict[str, object] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    session = Session(talker, frames=frames, system=system, options=options)
    if clip is not None:
        session.attach(str(clip))
    session.run()
