"""Measure how fast a checkpoint answers on this machine."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from llava_next_video.cli.ask import load_assistant
from llava_next_video.cli.options import Checkpoint, Device, DType, Quantize, TensorParallel
from llava_next_video.errors import ConfigError


def bench(
    model: Checkpoint = None,
    videos: Annotated[int, typer.Option(help="Different clips (of noise).")] = 4,
    questions: Annotated[int, typer.Option(help="Questions about each clip.")] = 4,
    frames: Annotated[int, typer.Option(help="Frames of each clip.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each question.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 64,
    rate: Annotated[
        float, typer.Option(help="Requests a second, at random moments.", show_default="0: all at once")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of clips, words and moments.")] = 0,
    dtype: DType = None,
    quantize: Quantize = None,
    device: Device = None,
    tensor_parallel: TensorParallel = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Put a made-up load on the engine; print throughput, waiting times, cache hits and the roofline.

    Pixels are ready when a request comes: reading clips is not measured.
    """
    from llava_next_video.engine import Engine
    from llava_next_video.engine.bench import Workload, bench

    load = Workload(
        videos=videos,
        questions=questions,
        frames=frames,
        prompt_tokens=prompt_tokens,
        new_tokens=max_new_tokens,
        per_second=rate,
        seed=seed,
    )
    network = load_assistant(
        model, device=device, dtype=dtype, quantize=quantize, tensor_parallel=tensor_parallel
    ).network
    if not isinstance(network, Engine):
        raise ConfigError(
            "the reference network answers here, and the engine is what is measured; take --device cpu or "
            "cuda, and weights that are not quantised already"
        )
    figures = bench(network, load)
    if as_json:
        typer.echo(json.dumps({"load": dataclasses.asdict(load), "figures": dataclasses.asdict(figures)}))
        return
    for name, value in (
        ("requests", f"{figures.requests} about {videos} clips of {frames} frames"),
        (
            "throughput",
            f"{figures.answer_tokens_per_s:.1f} tokens/s, {figures.requests_per_s:.2f} requests/s",
        ),
        ("first token", f"{figures.first_token.p50_s:.2f} s (p50), {figures.first_token.p99_s:.2f} s (p99)"),
        (
            "each token",
            f"{1000 * figures.each_token.p50_s:.1f} ms (p50), {1000 * figures.each_token.p99_s:.1f} ms (p99)",
        ),
        ("prompt tokens found", f"{figures.prefix_hits:.1%}"),
        ("clips found", f"{figures.video_hits:.1%}"),
        ("preemptions", str(figures.preemptions)),
        (
            "machine",
            f"{2e-9 * figures.machine.multiplications_per_s:.0f} GFLOP/s in products, "
            f"{1e-9 * figures.machine.bytes_per_s:.1f} GB/s from memory",
        ),
        (
            "used",
            f"{2e-9 * figures.multiplications_per_s:.0f} GFLOP/s in products, "
            f"{1e-9 * figures.bytes_per_s:.1f} GB/s of weights",
        ),
        ("share of the roofline", f"{figures.roofline:.1%} of {figures.busy_s:.2f} s"),
    ):
        typer.echo(f"{name:<22} {value}")
