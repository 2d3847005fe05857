"""Ask one question about clips and pictures."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from llava_next_video.errors import ConfigError, MediaError

if TYPE_CHECKING:
    from llava_next_video.assistant import Answer, VideoAssistant
    from llava_next_video.media import Sampling

SAMPLERS = ("uniform", "linspace", "fps")
MOST_FRAMES = 64


def ask(
    media_and_question: Annotated[
        list[str],
        typer.Argument(
            metavar='MEDIUM... "QUESTION"',
            help="Files, folders of frames or URLs, then the question.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder, or name on the hub.", show_default="the tiny model")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Frames to look at in each clip.", show_default="8; with --fps 64"),
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames to look at per second of clip.", show_default="off")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Which moments: uniform, linspace or fps.", show_default="uniform; fps with --fps"),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to answer with, at most.")] = 256,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token; 1 follows the model.")
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Choose among the likeliest tokens of this probability.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.", show_default="none")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device.", show_default="GPU if any")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="what is fastest here")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print answer, usage and frames as JSON.")] = False,
    usage: Annotated[bool, typer.Option("--usage", help="Print tokens and seconds to stderr.")] = False,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Draw the frames, question and answer here (PNG).", show_default="off")
    ] = None,
) -> None:
    """Ask a question about clips and pictures; the answer goes to stdout."""
    if len(media_and_question) < 2:
        raise ConfigError(
            f'{media_and_question[0]!r} stands alone; give media and a question: ask clip.mp4 "What happens?"'
        )
    *media, question = media_and_question
    sampling = choose_sampling(sampler, frames, fps)
    for medium in media:
        if "://" not in medium and not medium.startswith("data:") and not Path(medium).exists():
            raise MediaError(f"{medium}: no such file or folder")
    if contact_sheet is not None and not contact_sheet.absolute().parent.is_dir():
        raise ConfigError(f"{contact_sheet}: its folder does not exist; make it first")
    assistant = load_assistant(model, device=device, dtype=dtype)
    answer = assistant.ask(
        media,
        question,
        frames=sampling,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    typer.echo(json.dumps(as_record(answer, question), ensure_ascii=False) if as_json else answer.text)
    if usage:
        typer.echo(json.dumps(dataclasses.asdict(answer.usage)), err=True)
    if contact_sheet is not None:
        draw(contact_sheet, answer, question)


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


def load_assistant(model: str | None, *, device: str | None, dtype: str | None) -> VideoAssistant:
    """The assistant behind `--model`; one line on stderr while it loads."""
    if model is None:
        raise ConfigError(
            "no model named; give --model FOLDER (`llava-next-video convert random FOLDER` makes one)"
        )
    quiet()
    typer.echo(f"loading {model}", err=True)
    from llava_next_video.assistant import VideoAssistant

    return VideoAssistant.load(model, device=device, dtype=dtype)


def quiet() -> None:
    """Keep the progress bars and advice of libraries off the terminal; warnings of ours stay, in one line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"warning: {message}", err=True)
    # bitsandbytes tells everybody who imports peft about kernels that it did not find.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def draw(path: Path, answer: Answer, question: str) -> None:
    """Write the contact sheet of the first clip that was seen, question and answer below it."""
    from llava_next_video.media import Clip, contact_sheet

    clips = [seen for seen in answer.seen if isinstance(seen, Clip)]
    if not clips:
        raise ConfigError("--contact-sheet draws the frames of a clip, and no clip was given")
    contact_sheet(clips[0], question=question, answer=answer.text).save(path, format="PNG")


def as_record(answer: Answer, question: str) -> dict[str, object]:
    """An answer as one JSON object."""
    from llava_next_video.media import Clip

    return {
        "question": question,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": dataclasses.asdict(answer.usage),
        "media": [
            {
                "name": seen.name,
                "kind": "video",
                "sampling": dataclasses.asdict(seen.sampling),
                "frame_times_s": [round(time_s, 3) for time_s in seen.times_s],
                "frame_count": seen.frame_count,
                "size": seen.size._asdict(),
            }
            if isinstance(seen, Clip)
            else {"name": seen.name, "kind": "image", "size": seen.size._asdict()}
            for seen in answer.seen
        ],
    }
