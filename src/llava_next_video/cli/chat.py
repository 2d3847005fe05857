"""Talk about clips and pictures in the terminal."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from llava_next_video.cli.ask import load_assistant
from llava_next_video.cli.options import Checkpoint, Device, DType, Frames, LoRA, Quantize, TensorParallel
from llava_next_video.cli.remote import ApiKey, Servers, refuse_here


def chat(
    clip: Annotated[
        Path | None, typer.Argument(help="A clip or picture to begin with.", show_default="none")
    ] = None,
    model: Checkpoint = None,
    server: Servers = None,
    api_key: ApiKey = None,
    frames: Frames = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    system: Annotated[
        str | None, typer.Option(help="What to tell the model first.", show_default="nothing")
    ] = None,
    adapter: LoRA = None,
    device: Device = None,
    dtype: DType = None,
    quantize: Quantize = None,
    tensor_parallel: TensorParallel = 1,
) -> None:
    """Chat about clips and pictures; `/help` lists the commands, Ctrl-C stops an answer, `/bye` ends."""
    from llava_next_video.cli.session import Session
    from llava_next_video.cli.talkers import Local, Remote, Talker

    talker: Talker
    if server:
        here = {"--model": model, "--adapter": adapter, "--device": device, "--dtype": dtype}
        refuse_here({**here, "--quantize": quantize, "--tensor-parallel": tensor_parallel != 1})
        talker = Remote(server, api_key)
    else:
        assistant = load_assistant(
            model,
            device=device,
            dtype=dtype,
            quantize=quantize,
            adapter=adapter,
            tensor_parallel=tensor_parallel,
        )
        talker = Local(assistant)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives `input` its history
    options: dict[str, object] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    session = Session(talker, frames=frames, system=system, options=options)
    if clip is not None:
        session.attach(str(clip))
    session.run()
