"""Examine a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llava_next_video.cli.ask import choose_sampling, load_assistant
from llava_next_video.cli.judge import JudgeModel, JudgeTimeout, judge_server
from llava_next_video.cli.options import (
    Checkpoint,
    Device,
    DType,
    Frames,
    MostFrames,
    PerSecond,
    Quantize,
    RopeFactor,
    Sampler,
)
from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.assistant import VideoAssistant
    from llava_next_video.evaluate import Judge
    from llava_next_video.evaluate.manifest import Manifest

evaluate = typer.Typer(help="Examine a model.", no_args_is_help=True)


@evaluate.command(
    epilog="Example: `llava-next-video evaluate run videomme test.parquet --videos data --output scores`"
)
def run(
    benchmark: Annotated[str, typer.Argument(help="Its name; `evaluate list` shows them.")],
    files: Annotated[list[Path], typer.Argument(help="Its tables: parquet, JSON, JSON lines, CSV or TSV.")],
    videos: Annotated[Path, typer.Option(help="Folder that the names of videos are relative to.")],
    output: Annotated[Path, typer.Option(help="Folder for answers and scores, or to go on with.")],
    protocol: Annotated[
        str | None, typer.Option(help="How to ask and to mark.", show_default="the benchmark's first")
    ] = None,
    parser: Annotated[
        str | None, typer.Option(help="Another parser of letters.", show_default="the protocol's")
    ] = None,
    subtitles: Annotated[
        Path | None, typer.Option(help="Folder of .srt files: ask with subtitles.", show_default="without")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Who marks open answers: the URL of a server with OpenAI's chat API (key in "
            "OPENAI_API_KEY), or world (the toy world's truth).",
            show_default="nobody",
        ),
    ] = None,
    judge_model: JudgeModel = None,
    timeout: JudgeTimeout = 60.0,
    attempts: Annotated[int, typer.Option(help="How often a judge without a grade is asked.")] = 3,
    model: Checkpoint = None,
    frames: MostFrames = None,
    fps: PerSecond = None,
    sampler: Sampler = None,
    device: Device = None,
    dtype: DType = None,
    quantize: Quantize = None,
    rope_factor: RopeFactor = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Answer with the reference network instead of the engine.")
    ] = False,
    shard: Annotated[
        str, typer.Option(help="2/4: the second of four processes that share the work and the folder.")
    ] = "1/1",
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many items.", show_default="all")
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out items whose video is missing, and say so.")
    ] = False,
) -> None:
    """Answer a benchmark from local files; print scores with 95 % intervals, and their manifest.

    A run that was interrupted goes on where it was, as long as everything that the answers depend on is the
    same. The folder holds every item with its prompt, answer and mark in items.jsonl.
    """
    from llava_next_video.evaluate import ServerJudge, Shard, WorldJudge, examine, prepare

    if attempts < 1 or (limit is not None and limit < 1):
        raise ConfigError(f"--attempts is {attempts} and --limit {limit}; expected at least 1")
    part = Shard.parsed(shard)
    server = judge_server(judge, judge_model, timeout, known=("world",))
    marked_by: Judge | None = None if judge is None else WorldJudge()
    if server is not None:
        marked_by = ServerJudge(server=server)
    work = prepare(
        benchmark,
        files,
        videos,
        protocol=protocol,
        parser=parser,
        subtitles=subtitles,
        sampling=choose_sampling(sampler, frames, fps),
        limit=limit,
        skip_missing=skip_missing,
    )
    work.refuse_judge(marked_by)
    assistant = load_assistant(
        model, device=device, dtype=dtype, quantize=quantize, rope_factor=rope_factor, reference=reference
    )
    with _progress() as told:
        report = examine(
            work,
            output,
            assistant=assistant,
            model=_of_model(assistant, model, rope_factor),
            judge=marked_by,
            shard=part,
            attempts=attempts,
            told=told,
        )
    typer.echo(report.text)
    if report.undecided and not report.rows:
        raise ConfigError(
            f"the judge gave no grade to any of {len(report.undecided):,} items; see the reason above, and "
            "run the same command again: the answers are kept"
        )


@evaluate.command(epilog="Example: `llava-next-video evaluate score scores`")
def score(
    folders: Annotated[list[Path], typer.Argument(help="Outputs of `evaluate run`, all with one manifest.")],
    parser: Annotated[
        str | None,
        typer.Option(help="Mark the same answers by this parser; writes nothing.", show_default="as run"),
    ] = None,
) -> None:
    """Print the scores of a folder again, or of several together; no model is loaded."""
    from llava_next_video.evaluate import score as scored

    typer.echo(scored(folders, parser=parser).text)


@evaluate.command(name="list", epilog="Example: `llava-next-video evaluate list`")
def show() -> None:
    """Print the benchmarks with the columns of their tables, and the protocols with their sources."""
    from llava_next_video.evaluate import BENCHMARKS

    for benchmark in BENCHMARKS.values():
        typer.echo(f"{benchmark.name}: {benchmark.rows}\n  {benchmark.source}")
        for protocol in benchmark.protocols:
            marks = protocol.parser or ", ".join(f"judge: {rubric.name}" for rubric in protocol.rubrics)
            typer.echo(f"  --protocol {protocol.name} ({marks}): {protocol.source}")


@evaluate.command(epilog="Example: `llava-next-video evaluate world --clips 200`")
def world(
    clips: Annotated[int, typer.Option(help="Fresh clips to film and ask about.")] = 200,
    images: Annotated[int, typer.Option(help="Fresh pictures to draw and ask about.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the scenes; training uses others.")] = 990_000,
    frames: Frames = 8,
    model: Checkpoint = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the scores here (JSON).", show_default="nowhere")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Keep every question with truth and answer here (JSON lines), or go on with it.",
            show_default="nowhere",
        ),
    ] = None,
) -> None:
    """Ask everything about scenes of the toy world; print a table of exact matches with 95 % intervals.

    Scenes and questions depend on the seed alone, so the answers of two models can be compared line by line.
    With --answers a run that was interrupted, or had fewer clips, goes on where it was, as long as everything
    that the answers depend on is the same (FILE.manifest.json).
    """
    from llava_next_video.evaluate import examine_world, kept_answers, world_manifest

    for path in (out, answers):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}; make it first")
    assistant = load_assistant(model)
    with ExitStack() as stack:
        kept = None
        if answers is not None:
            manifest = world_manifest(seed=seed, frames=frames, model=_of_model(assistant, model))
            kept = stack.enter_context(kept_answers(answers, manifest))
        report = examine_world(
            assistant,
            clips=clips,
            pictures=images,
            seed=seed,
            frames=frames,
            told=stack.enter_context(_progress()),
            kept=kept,
        )
    typer.echo(report.table())
    if out is not None:
        out.write_text(json.dumps(report.as_record(), indent=1) + "\n")


def _of_model(assistant: VideoAssistant, model: str | None, rope_factor: float | None = None) -> Manifest:
    """What stands in a manifest about the model of that name."""
    from llava_next_video.checkpoint_name import DEFAULT
    from llava_next_video.evaluate.manifest import of_model
    from llava_next_video.model.checkpoint import checkpoint_folder

    name = model or DEFAULT
    return of_model(assistant, name, checkpoint_folder(name), rope_factor=rope_factor)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Told how many answers there are, and of how many, it shows so on stderr."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    words = SpinnerColumn(), TextColumn("{task.completed} answers{task.fields[wanted]}")
    console = Console(stderr=True)
    with Progress(*words, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("asking", total=None, wanted="")
        yield lambda done, total: progress.update(task, completed=done, wanted=f" of {total}")
