"""Ask one question about clips and pictures."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from llava_next_video.cli.options import (
    Checkpoint,
    Device,
    DType,
    LoRA,
    MostFrames,
    PerSecond,
    Sampler,
    TensorParallel,
)
from llava_next_video.cli.plan import plan_question, plan_text, read_long
from llava_next_video.cli.remote import ApiKey, Servers, ask_server
from llava_next_video.cli.told import as_record, notes
from llava_next_video.errors import ConfigError, MediaError

if TYPE_CHECKING:
    from llava_next_video.assistant import VideoAssistant
    from llava_next_video.media import Sampling

SAMPLERS = ("uniform", "linspace", "fps")
MOST_FRAMES = 64
TINY = (
    "answering with the tiny checkpoint of the package, which knows moving shapes and nothing else; "
    "name a real one with --model"
)


def ask(
    media_and_question: Annotated[
        list[str],
        typer.Argument(
            metavar='MEDIUM... "QUESTION"',
            help="Files, folders of frames or URLs, then the question.",
            show_default=False,
        ),
    ],
    model: Checkpoint = None,
    frames: MostFrames = None,
    fps: PerSecond = None,
    sampler: Sampler = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to answer with, at most.")] = 256,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token; 1 follows the model.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Choose among the likeliest tokens of this probability.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.", show_default="none")] = None,
    adapter: LoRA = None,
    device: Device = None,
    dtype: DType = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="int8: 8-bit weights and activations in the engine; on a GPU also fp8, int4. bnb-8bit, "
            "bnb-4bit: the reference network with a language model quantised by bitsandbytes; a table says "
            "what was.",
            show_default="off",
        ),
    ] = None,
    tensor_parallel: TensorParallel = 1,
    max_visual_tokens: Annotated[
        int | None,
        typer.Option(help="Show fewer frames, so that they are no more tokens.", show_default="off"),
    ] = None,
    rope_factor: Annotated[
        str | None,
        typer.Option(
            help="Stretch the context that many times, for more frames; auto: as far as the question needs.",
            show_default="checkpoint's",
        ),
    ] = None,
    rope_kind: Annotated[
        str | None,
        typer.Option(
            help="How to stretch it: linear, dynamic (NTK), yarn; auto: as the checkpoint does, else yarn.",
            show_default="linear; auto with --rope-factor auto",
        ),
    ] = None,
    slow_fast: Annotated[
        int | None,
        typer.Option(
            help="Pool all frames but every so-many-th twice as much: a quarter of the tokens.",
            show_default="checkpoint's",
        ),
    ] = None,
    slow_stride: Annotated[
        int | None,
        typer.Option(
            help="Patches a side that slow frames pool, with --slow-fast.", show_default="checkpoint's"
        ),
    ] = None,
    newline: Annotated[
        str | None,
        typer.Option(
            help="Newline tokens in clips: no_token, one_token, frame or grid.", show_default="checkpoint's"
        ),
    ] = None,
    time_instruction: Annotated[
        bool, typer.Option("--time-instruction", help="Tell the model the seconds of the frames.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Answer with the reference network instead of the engine.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what the question needs and what would fit; load no weights."),
    ] = False,
    server: Servers = None,
    api_key: ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print answer, usage and frames as JSON.")] = False,
    usage: Annotated[bool, typer.Option("--usage", help="Print tokens and seconds to stderr.")] = False,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="Draw what was seen, question and answer here (a .png).", show_default="off"),
    ] = None,
) -> None:
    """Ask a question about clips and pictures; the answer goes to stdout."""
    if len(media_and_question) < 2:
        raise ConfigError(
            f'{media_and_question[0]!r} stands alone; give media and a question: ask clip.mp4 "What happens?"'
        )
    *media, question = media_and_question
    sampling = choose_sampling(sampler, frames, fps)
    refuse_absent(media)
    if contact_sheet is not None:
        refuse_target(contact_sheet, media)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    refuse_options(options)
    if server:
        here: dict[str, object] = {
            "--model": model,
            "--adapter": adapter,
            "--device": device,
            "--dtype": dtype,
            "--quantize": quantize,
            "--tensor-parallel": tensor_parallel != 1,
        }
        here |= {"--rope-factor": rope_factor, "--max-visual-tokens": max_visual_tokens, "--plan": plan}
        here |= {"--rope-kind": rope_kind, "--slow-fast": slow_fast, "--slow-stride": slow_stride}
        here |= {"--newline": newline, "--time-instruction": time_instruction}
        ask_server(
            server,
            media,
            question,
            api_key=api_key,
            sampling=sampling,
            options=options,
            not_for_servers={**here, "--reference": reference, "--contact-sheet": contact_sheet},
            as_json=as_json,
            usage=usage,
        )
        return
    long = read_long(
        rope_factor=rope_factor,
        rope_kind=rope_kind,
        slow_fast=slow_fast,
        slow_stride=slow_stride,
        newline=newline,
        time_instruction=time_instruction,
    )
    if plan:
        planned = plan_question(
            model,
            media,
            question,
            frames=sampling,
            max_visual_tokens=max_visual_tokens,
            long=long,
            max_new_tokens=max_new_tokens,
        )
        typer.echo(json.dumps(dataclasses.asdict(planned)) if as_json else plan_text(planned))
        if not planned.fits:
            raise typer.Exit(1)
        return
    assistant = load_assistant(
        model,
        device=device,
        dtype=dtype,
        quantize=quantize,
        reference=reference,
        adapter=adapter,
        tensor_parallel=tensor_parallel,
    )
    answer = assistant.ask(
        media, question, frames=sampling, max_visual_tokens=max_visual_tokens, **long, **options
    )
    for note in notes(answer):
        typer.echo(f"note: {note}", err=True)
    typer.echo(json.dumps(as_record(answer, question), ensure_ascii=False) if as_json else answer.text)
    if usage:
        typer.echo(json.dumps(dataclasses.asdict(answer.usage)), err=True)
    if contact_sheet is not None:
        from llava_next_video.media import contact_sheet as drawn

        drawn(answer.seen, question=question, answer=answer.text).save(contact_sheet, format="PNG")


def refuse_absent(media: list[str]) -> None:
    """Raise when a medium is neither a URL nor there, before a model is loaded.

    Raises:
        MediaError: Its name.
    """
    from llava_next_video.media import is_url

    for medium in media:
        if not is_url(medium) and not Path(medium).exists():
            raise MediaError(f"{medium}: no such file, folder or URL")


def refuse_target(path: Path, media: list[str]) -> None:
    """Raise when a picture cannot be written there, before any work is done.

    Raises:
        ConfigError: No .png, no folder to write into, or one of the media.
    """
    folder = path.absolute().parent
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path}: a contact sheet is a PNG picture; name a file that ends in .png")
    if not folder.is_dir():
        raise ConfigError(f"{path}: its folder does not exist; make it first")
    if path.exists() and any(Path(medium).exists() and path.samefile(medium) for medium in media):
        raise ConfigError(f"{path} is one of the media; name another file for the contact sheet")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{path} cannot be written; name another file for the contact sheet")


def refuse_options(options: dict[str, object]) -> None:
    """Raise when the generation settings are impossible, before a model is loaded."""
    from llava_next_video.assistant.options import options_from

    options_from(options)


def choose_sampling(sampler: str | None, frames: int | None, fps: float | None) -> Sampling:
    """The sampling that --sampler, --frames and --fps ask for together.

    Raises:
        ConfigError: The three contradict each other, or one is out of range.
    """
    from llava_next_video.media import Sampling

    how = sampler or ("uniform" if fps is None else "fps")
    if how not in SAMPLERS:
        raise ConfigError(f"unknown sampler {how!r}; known: {', '.join(SAMPLERS)}")
    if (how == "fps") != (fps is not None):
        raise ConfigError(
            f"--sampler {how} and --fps {fps} contradict each other; --fps is for the fps sampler"
        )
    if how == "fps":
        return Sampling(how="fps", per_second=fps, frames=MOST_FRAMES if frames is None else frames)
    return Sampling(how=cast(Literal["uniform", "linspace"], how), frames=8 if frames is None else frames)


def load_assistant(
    model: str | None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    rope_factor: float | None = None,
    reference: bool = False,
    adapter: str | None = None,
    kv_bytes: int | None = None,
    kv_dtype: str | None = None,
    tensor_parallel: int = 1,
) -> VideoAssistant:
    """The assistant behind `--model`; one line on stderr while it loads."""
    if model is None:
        typer.echo(TINY, err=True)
    else:
        typer.echo(f"loading {model}", err=True)
    quiet()
    from llava_next_video.assistant import VideoAssistant
    from llava_next_video.assistant.reference import ReferenceNetwork
    from llava_next_video.model.quantised import is_quantised, quantised_table, quantised_text

    assistant = VideoAssistant.load(
        model,
        device=device,
        dtype=dtype,
        quantize=quantize,
        rope_factor=rope_factor,
        reference=reference,
        adapter=adapter,
        kv_bytes=kv_bytes,
        kv_dtype=kv_dtype,
        tensor_parallel=tensor_parallel,
    )
    network = assistant.network
    if isinstance(network, ReferenceNetwork) and is_quantised(network.model):
        typer.echo(quantised_text(quantised_table(network.model)), err=True)
    return assistant


def quiet() -> None:
    """Keep the progress bars and advice of libraries off the terminal; warnings of ours stay, in one line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    # bitsandbytes tells everybody who imports peft about kernels that it did not find.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # And huggingface_hub about every retry, when the hub is out of reach.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
