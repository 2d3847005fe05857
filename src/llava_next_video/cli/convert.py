"""Make checkpoints, from others or from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llava_next_video.cli.ask import quiet
from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.convert import Converted, Wishes

convert = typer.Typer(help="Make checkpoints, from others or from nothing.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="Folder to write; it must be empty or absent.")]
Template = Annotated[
    str | None,
    typer.Option(
        help="Chat template: vicuna, mistral, chatml, chatml_direct, qwen, plain, or a file.",
        show_default="the checkpoint's",
    ),
]
RopeFactor = Annotated[
    float | None,
    typer.Option(help="How far to stretch the positions, e.g. 2.", show_default="the checkpoint's"),
]
Newline = Annotated[
    str | None,
    typer.Option(
        help="Newlines in a clip: no_token, one_token, frame or grid.", show_default="the checkpoint's"
    ),
]
PoolOrder = Annotated[
    str | None,
    typer.Option(help="Pool frames before or after the projector.", show_default="the checkpoint's"),
]
PoolMode = Annotated[
    str | None,
    typer.Option(help="How frames are pooled: average, max or bilinear.", show_default="the checkpoint's"),
]
PoolStride = Annotated[
    int | None,
    typer.Option(help="Patches a side that become one.", show_default="the checkpoint's"),
]
ShardSize = Annotated[float, typer.Option("--shard-gb", help="Largest file of weights, in GB.")]


@convert.command(epilog="Example: `llava-next-video convert original lmms-lab/LLaVA-NeXT-Video-7B out/`")
def original(
    path: Annotated[str, typer.Argument(help="Folder of the original release, or owner/name on the hub.")],
    out: Out,
    template: Template = None,
    rope_factor: RopeFactor = None,
    newline: Newline = None,
    pool: PoolOrder = None,
    pool_mode: PoolMode = None,
    pool_stride: PoolStride = None,
    tower_config: Annotated[
        Path | None,
        typer.Option(help="config.json of a vision tower that is not known here.", show_default="none"),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Another folder to take the tokenizer from.", show_default="PATH"),
    ] = None,
    shard_gb: ShardSize = 2.0,
) -> None:
    """Write a checkpoint of the original release (lmms-lab) in the layout of the hub.

    What its config.json leaves out (template, newlines, pooling, positions) is known of published checkpoints
    by their shape. Weights keep their bits; they pass in chunks, so memory does not grow with the model.
    """
    from llava_next_video.convert import original_to_hub

    wishes = _wishes(template, rope_factor, newline, pool, pool_mode, pool_stride)
    quiet()
    _tell(
        out,
        original_to_hub(
            _folder(path), out, wishes, tower=tower_config, tokenizer=tokenizer, shard_bytes=_bytes(shard_gb)
        ),
    )


@convert.command(epilog="Example: `llava-next-video convert hub-to-original out/ back/`")
def hub_to_original(
    path: Annotated[str, typer.Argument(help="Checkpoint folder, or owner/name on the hub.")],
    out: Out,
    shard_gb: ShardSize = 2.0,
) -> None:
    """Write a checkpoint with the names and the config.json of the original release, bit for bit."""
    from llava_next_video.convert import hub_to_original as back

    quiet()
    _tell(out, back(_folder(path), out, shard_bytes=_bytes(shard_gb)))


@convert.command(epilog="Example: `llava-next-video convert image llava-hf/llava-v1.6-vicuna-7b-hf out/`")
def image(
    path: Annotated[str, typer.Argument(help="LLaVA-NeXT image checkpoint: a folder, or owner/name.")],
    out: Out,
    template: Template = None,
    rope_factor: RopeFactor = None,
    newline: Newline = None,
    pool: PoolOrder = None,
    pool_mode: PoolMode = None,
    pool_stride: PoolStride = None,
    shard_gb: ShardSize = 2.0,
) -> None:
    """Write a LLaVA-NeXT image checkpoint as one that sees clips, zero-shot: `<video>` is added."""
    from llava_next_video.convert import image_to_video

    wishes = _wishes(template, rope_factor, newline, pool, pool_mode, pool_stride)
    quiet()
    _tell(out, image_to_video(_folder(path), out, wishes, shard_bytes=_bytes(shard_gb)))


@convert.command(epilog="Example: `llava-next-video convert push out/ me/my-video-model --private`")
def push(
    path: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    name: Annotated[str, typer.Argument(help="owner/name on the hub.")],
    private: Annotated[bool, typer.Option(help="Hide a new repository from others.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload a LLaVA-NeXT-Video checkpoint",
) -> None:
    """Upload a checkpoint to the hub (token: HF_TOKEN or `hf auth login`); prints the address of its page."""
    from llava_next_video.convert import push as upload

    quiet()
    typer.echo(upload(path, name, private=private, message=message))


@convert.command()
def known() -> None:
    """List the published checkpoints that are known, what each needs, and where that is from."""
    from llava_next_video.convert import PUBLISHED

    for one in PUBLISHED:
        order = "before" if one.pool_before_projector else "after"
        rope = f", positions x {one.rope_factor:g}" if one.rope_factor else ""
        typer.echo(f"{one.name}: {one.shape}")
        typer.echo(
            f"  template {one.template}; newlines {one.video_newline}; {one.spatial_pool_mode} pooling by "
            f"{one.spatial_pool_stride} {order} the projector{rope}; up to {one.frames} frames"
        )
        if one.hub and one.placeholders:
            video, image_id = one.placeholders
            template = one.hub_template or one.template
            typer.echo(f"  on the hub: {one.hub}, template {template}, <video> {video}, <image> {image_id}")
        for source in one.sources:
            typer.echo(f"  - {source}")


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


def _wishes(
    template: str | None,
    rope_factor: float | None,
    newline: str | None,
    pool: str | None,
    pool_mode: str | None,
    pool_stride: int | None,
) -> Wishes:
    from llava_next_video.convert import read_wishes

    return read_wishes(
        template=template,
        rope_factor=rope_factor,
        video_newline=newline,
        pool_order=pool,
        spatial_pool_mode=pool_mode,
        spatial_pool_stride=pool_stride,
    )


def _folder(name: str) -> Path:
    from llava_next_video.model.checkpoint import checkpoint_folder

    return checkpoint_folder(name, files=None)  # the original release may be pickles


def _bytes(gigabytes: float) -> int:
    if gigabytes <= 0:
        raise ConfigError(f"--shard-gb is {gigabytes:g}; give a size above 0, e.g. 5")
    return int(gigabytes * 10**9)


def _tell(out: Path, converted: Converted) -> None:
    for note in converted.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {converted.tensors:,} weights, {converted.size_bytes:,} bytes", err=True)
