"""Caption many videos."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from llava_next_video.cli.ask import TINY, choose_sampling, quiet, refuse_options
from llava_next_video.cli.options import (
    Checkpoint,
    Device,
    DType,
    KvDType,
    LoRA,
    MostFrames,
    PerSecond,
    Quantize,
    TensorParallel,
)
from llava_next_video.cli.progress import figures_told
from llava_next_video.cli.remote import ApiKey
from llava_next_video.errors import ConfigError, LlavaNextVideoError

if TYPE_CHECKING:
    from llava_next_video.caption import Model
    from llava_next_video.caption.job import Work
    from llava_next_video.caption.local import Recipe
    from llava_next_video.media import Sampling

PROMPT = "Describe the video in detail."
SENDS = ("video", "frames", "images")
DEDUPES = ("off", "exact", "near")


def caption(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders (searched to their depths), globs, videos, WebDataset tars, or manifests: .txt, "
            ".csv, .tsv, .jsonl, .parquet.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder of parquet parts to write, or to go on with.", show_default=False)
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What to ask; {name} is the manifest's column of that name. A column 'prompt' is each "
            "row's own, and goes before this.",
            show_default=f'"{PROMPT}"',
        ),
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="File with what to ask.", show_default="none")
    ] = None,
    model: Checkpoint = None,
    frames: MostFrames = None,
    fps: PerSecond = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a caption, at most.")] = 128,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token; 1 follows the model.")
    ] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.", show_default="none")] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Part of the list to do: 2/8 is the second of eight.", show_default="everything"),
    ] = None,
    near_keys: Annotated[
        bool,
        typer.Option(
            "--near-keys",
            help="Look at the key frame next to each moment, if one is near: half the decoding.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option(help="Videos decoded at once, each in a process.")] = 2,
    held_mb: Annotated[int, typer.Option(help="Decoded megabytes that may wait for the model.")] = 1024,
    part_rows: Annotated[int, typer.Option(help="Rows of a part, at most.")] = 1000,
    dedupe: Annotated[
        str | None,
        typer.Option(
            help="Caption once: exact (equal files), near (also re-encoded ones), or off.",
            show_default="exact; with --ray off",
        ),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again what ended with an error in an earlier run.")
    ] = False,
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Move the output's captions aside and begin anew.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write OUTPUT/_report.html at the end.")
    ] = True,
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="Let this running server describe (ours, vLLM, SGLang); several may be named.",
            show_default="none",
        ),
    ] = None,
    send: Annotated[
        str | None,
        typer.Option(
            help="With --server: video (the file), frames (one data:video/jpeg) or images.",
            show_default="frames to ours, images to others",
        ),
    ] = None,
    api_key: ApiKey = None,
    at_once: Annotated[int, typer.Option(help="With --server: requests under way.")] = 32,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let a Ray cluster work: auto (the one that runs here), host:port, or local (start one).",
            show_default="off",
        ),
    ] = None,
    ray_models: Annotated[
        int, typer.Option(help="With --ray: models, one GPU each where there are any; --workers read.")
    ] = 1,
    adapter: LoRA = None,
    device: Device = None,
    dtype: DType = None,
    kv_mb: Annotated[
        int | None,
        typer.Option(help="Megabytes for keys and values: for how many videos at once.", show_default="2048"),
    ] = None,
    quantize: Quantize = None,
    kv_dtype: KvDType = None,
    tensor_parallel: TensorParallel = 1,
) -> None:
    """Caption every video once, into parquet; killed and run again, it goes on where it was."""
    from llava_next_video.caption import Settings, estimate, list_items, on_this_machine, share
    from llava_next_video.caption import caption as caption_all

    dedupe = dedupe or ("off" if ray else "exact")
    if dedupe not in DEDUPES:
        raise ConfigError(f"unknown --dedupe {dedupe!r}; known: {', '.join(DEDUPES)}")
    question = _question(prompt, prompt_file)
    sampling = replace(choose_sampling(None, frames, fps), near_keys=near_keys)
    if near_keys and server and send == "video":
        raise ConfigError(
            "--near-keys is for frames that are chosen here; --send video leaves that to the server"
        )
    options: dict[str, object] = {"max_new_tokens": max_tokens, "temperature": temperature, "seed": seed}
    refuse_options(options)
    settings = Settings(
        workers=_positive("workers", workers),
        held_bytes=_positive("held-mb", held_mb) << 20,
        part_rows=_positive("part-rows", part_rows),
        dedupe=cast(Literal["off", "exact", "near"], dedupe),
    )
    shards = None if shard is None else _shard(shard)
    items = list_items(inputs, question)
    if (prompt or prompt_file) and (own := sum(item.own_prompt for item in items)):
        typer.echo(
            f"{own:,} of {len(items):,} videos have a prompt of their own (the column 'prompt'); --prompt is "
            "for the others",
            err=True,
        )
    if shards is not None:
        items = share(items, shards[0] - 1, shards[1])
    kv_bytes = None if kv_mb is None else _positive("kv-mb", kv_mb) << 20
    weights: dict[str, str | int | None] = {"device": device, "dtype": dtype, "quantize": quantize}
    weights |= {"adapter": adapter, "kv_bytes": kv_bytes}
    weights |= {} if kv_dtype is None else {"kv_dtype": kv_dtype}
    weights |= {} if tensor_parallel == 1 else {"tensor_parallel": tensor_parallel}
    look = settings.dedupe == "near"
    if server:
        given = {"adapter": adapter, "device": device, "dtype": dtype, "quantize": quantize, "kv-mb": kv_mb}
        given |= {"kv-dtype": kv_dtype, "tensor-parallel": weights.get("tensor_parallel")}
        if refused := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"--{refused[0]} is the server's business; leave it or --server out")
        chosen = _remote(server, model, send, at_once, api_key, question, sampling, options, look)
    else:
        chosen, recipe = _local(model, weights, question, sampling, options, look)
    hands: AbstractContextManager[Work] = nullcontext(on_this_machine)
    if ray:
        if server or dedupe != "off":
            raise ConfigError("--ray does without --server and --dedupe; leave them out, or leave --ray out")
        if tensor_parallel != 1:
            raise ConfigError(
                "--tensor-parallel shares the GPUs of this machine, and a model on Ray has one; leave one of "
                "the two out"
            )
        from llava_next_video.caption.cluster import Cluster, on_ray

        cluster = Cluster(address=ray, readers=workers, models=_positive("ray-models", ray_models))
        hands = on_ray(cluster, recipe)
    with hands as work, figures_told() as told:
        figures = caption_all(
            items,
            output,
            chosen,
            settings,
            new_run=new_run,
            retry_errors=retry_errors,
            report=report,
            work=work,
            told=told,
        )
    if figures.errors and figures.errors == figures.total:
        typer.echo(estimate(figures), err=True)
        raise LlavaNextVideoError(
            f"{output}: no video has a caption; the column 'error' says why, --retry-errors tries again"
        )
    if figures.errors:
        way_out = "the column 'error' says why, --retry-errors tries again"
        counted = "1 video has" if figures.errors == 1 else f"{figures.errors} videos have"
        typer.echo(f"{counted} no caption; {way_out}", err=True)
    typer.echo(estimate(figures), err=True)
    typer.echo(output)


def _question(prompt: str | None, prompt_file: Path | None) -> str:
    if prompt is not None and prompt_file is not None:
        raise ConfigError("--prompt and --prompt-file were both given; keep one")
    question = prompt_file.read_text(encoding="utf-8").strip() if prompt_file else prompt or PROMPT
    if not question.strip():
        raise ConfigError(f"the prompt is empty; say what to ask, for instance {PROMPT!r}")
    return question


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"--{name} {value} was given; expected 1 or more")
    return value


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConfigError(f"--shard {text}: expected i/n with i from 1 to n, for instance 2/8")
    return int(index), int(count)


def _local(
    model: str | None,
    weights: dict[str, str | int | None],
    question: str,
    sampling: Sampling,
    options: dict[str, object],
    look: bool,
) -> tuple[Model, Recipe]:
    """The model of this machine, or of each of a cluster's."""
    typer.echo(TINY if model is None else f"loading {model}", err=True)
    quiet()
    from llava_next_video.caption.local import local_model

    return local_model(model, weights, question, sampling, options, look=look)


def _remote(
    urls: list[str],
    model: str | None,
    send: str | None,
    at_once: int,
    api_key: str | None,
    question: str,
    sampling: Sampling,
    options: dict[str, object],
    look: bool,
) -> Model:
    """Running servers."""
    from llava_next_video.caption.servers import server_model

    if send is not None and send not in SENDS:
        raise ConfigError(f"unknown --send {send!r}; known: {', '.join(SENDS)}")
    if send == "video" and look:
        raise ConfigError(
            "--dedupe near needs frames, and --send video decodes none here; send images or frames"
        )
    return server_model(
        urls,
        model,
        question,
        sampling,
        options,
        send=cast(Literal["video", "frames", "images"] | None, send),
        at_once=_positive("at-once", at_once),
        look=look,
        key=api_key or os.environ.get("OPENAI_API_KEY"),
    )
