"""Options that several commands have, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint folder, or name on the hub.", show_default="a tiny one that knows moving shapes"
    ),
]
Frames = Annotated[int, typer.Option(help="Frames to look at in each clip.")]
MostFrames = Annotated[
    int | None, typer.Option(help="Frames to look at in each clip.", show_default="8; with --fps 64")
]
PerSecond = Annotated[
    float | None, typer.Option(help="Frames to look at per second of clip.", show_default="off")
]
Sampler = Annotated[
    str | None,
    typer.Option(help="Which moments: uniform, linspace or fps.", show_default="uniform; fps with --fps"),
]
LoRA = Annotated[
    str | None,
    typer.Option("--adapter", help="Folder with LoRA weights to add (train sft, PEFT).", show_default="none"),
]
Device = Annotated[str | None, typer.Option(help="Torch device.", show_default="GPU if any")]
DType = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="what is fastest here")
]
Quantize = Annotated[
    str | None,
    typer.Option(help="int8: 8-bit weights; on a GPU also fp8 and int4.", show_default="off"),
]
KvDType = Annotated[
    str | None,
    typer.Option(help="fp8: keys and values in 8 bits, on a GPU; auto.", show_default="auto: the weights'"),
]
TensorParallel = Annotated[
    int,
    typer.Option(help="GPUs that share the text layers of a network too large for one.", show_default="1"),
]
RopeFactor = Annotated[
    float | None,
    typer.Option(help="Stretch the context that many times.", show_default="checkpoint's"),
]
