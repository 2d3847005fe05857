"""Serve a model over HTTP, with a page to drop a video on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava_next_video.cli.ask import load_assistant
from llava_next_video.cli.options import (
    Checkpoint,
    Device,
    DType,
    KvDType,
    LoRA,
    Quantize,
    RopeFactor,
    TensorParallel,
)
from llava_next_video.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from llava_next_video.serve.settings import ServeSettings

MEBIBYTE = 1 << 20


def serve(
    model: Checkpoint = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any that is free.")] = 8000,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model.", show_default="last part of --model")
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="LNV_API_KEY", help="Key that opens the API; may be repeated.", show_default="open"
        ),
    ] = None,
    allow_media_domain: Annotated[
        list[str] | None,
        typer.Option(help="Host (and subdomains) that media may be fetched from.", show_default="none"),
    ] = None,
    allow_media_path: Annotated[
        list[Path] | None, typer.Option(help="Folder that file:// may read.", show_default="none")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Web origin whose pages may ask (CORS).", show_default="none")
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of a clip, unless a request says otherwise.")] = 8,
    max_frames: Annotated[int, typer.Option(help="Frames of a clip that a request may ask for.")] = 64,
    max_requests: Annotated[int, typer.Option(help="Requests under way; beyond them 429.")] = 256,
    max_body_mib: Annotated[int, typer.Option(help="MiB of one request.")] = 64,
    max_media_mib: Annotated[int, typer.Option(help="MiB of one clip or picture.")] = 256,
    deadline: Annotated[float, typer.Option(help="Seconds a request may take; beyond them 504.")] = 300.0,
    drain: Annotated[float, typer.Option(help="Seconds for requests under way when told to stop.")] = 30.0,
    cache_mib: Annotated[
        int | None,
        typer.Option(
            help="MiB for the keys and values of prompts.", show_default="2048; on a GPU what is left of it"
        ),
    ] = None,
    decoders: Annotated[
        int | None, typer.Option(help="Processes that fetch and decode.", show_default="one a core")
    ] = None,
    adapter: LoRA = None,
    device: Device = None,
    dtype: DType = None,
    quantize: Quantize = None,
    kv_dtype: KvDType = None,
    tensor_parallel: TensorParallel = 1,
    rope_factor: RopeFactor = None,
    ray: Annotated[
        str | None,
        typer.Option(help="replicas=N: so many replicas on a Ray cluster.", show_default="this process"),
    ] = None,
) -> None:
    """Answer questions about clips over HTTP in OpenAI's words; the page is at the root."""
    try:
        from llava_next_video.serve.address import listen_at, url_of
        from llava_next_video.serve.server import serve as run
        from llava_next_video.serve.settings import MEDIUM, ServeSettings
    except ImportError as error:
        raise MissingExtraError(
            "serving needs fastapi, uvicorn and prometheus-client; pip install 'llava-next-video[serve]'"
        ) from error
    for folder in allow_media_path or []:
        if not folder.is_dir():
            raise ConfigError(f"--allow-media-path {folder}: no such folder")
    own = "llava-next-video" if model is None else Path(model).name
    more = {} if decoders is None else {"decoders": decoders}
    settings = ServeSettings(
        model_name=served_model_name or own,
        api_keys=tuple(api_key or ()),
        origins=tuple(allow_origin or ()),
        domains=tuple(allow_media_domain or ()),
        folders=tuple(allow_media_path or ()),
        frames=frames,
        max_frames=max_frames,
        max_requests=max_requests,
        max_body_bytes=max_body_mib * MEBIBYTE,
        bodies_bytes=8 * max_body_mib * MEBIBYTE,
        deadline_s=deadline,
        drain_s=drain,
        limits=replace(MEDIUM, bytes=max_media_mib * MEBIBYTE),
        **more,
    )
    load: dict[str, Any] = {"device": device, "dtype": dtype, "quantize": quantize, "kv_dtype": kv_dtype}
    load |= {"adapter": adapter, "tensor_parallel": tensor_parallel}
    load |= {"rope_factor": rope_factor, "kv_bytes": None if cache_mib is None else cache_mib * MEBIBYTE}
    if ray is not None:
        if tensor_parallel != 1:
            raise ConfigError(
                "--tensor-parallel shares the GPUs of this machine, and a replica on Ray has one; leave "
                "one of the two out"
            )
        serve_replicas(ray, model, settings, host=host, port=port, load=load)
        return
    # Before the model is loaded: an address that cannot be had is told at once.
    with ExitStack() as held:
        sockets = [held.enter_context(one) for one in listen_at(host, port)]
        told = f"{url_of(host, sockets)} serves {settings.model_name}"
        run(load_assistant(model, **load), settings, sockets, lambda: typer.echo(told, err=True))


def serve_replicas(
    words: str,
    model: str | None,
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    load: Mapping[str, object],
) -> None:
    """Serve replicas on a Ray cluster until interrupted."""
    from llava_next_video.serve.cluster import read_cluster, start

    replicas = read_cluster(words)
    stop = start(model, settings, replicas=replicas, host=host, port=port, load=load)
    typer.echo(f"http://{host}:{port} serves {settings.model_name}, {replicas} times", err=True)
    try:
        threading.Event().wait()
    finally:
        stop()
