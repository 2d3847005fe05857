"""Make preference pairs from AI feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from llava_next_video.cli.ask import load_assistant
from llava_next_video.cli.judge import JudgeModel, JudgeTimeout, judge_server
from llava_next_video.cli.options import Checkpoint, Frames
from llava_next_video.errors import ConfigError

JUDGES = ("world", "self")


def prefer(
    questions: Annotated[
        Path,
        typer.Argument(
            help="Rows with question and video (and caption, answer), or conversations.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(help="Folder for answers, verdicts and pairs, or to go on with.", show_default=False),
    ],
    judge: Annotated[
        str,
        typer.Option(
            help="Who judges: world (the toy world's truth), self (the model looks again), or the URL of a "
            "server with OpenAI's chat API, which reads the caption."
        ),
    ] = "world",
    judge_model: JudgeModel = None,
    model: Checkpoint = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that media paths are relative to.", show_default="the questions'"),
    ] = None,
    answers: Annotated[int, typer.Option(help="Answers to each question.")] = 6,
    temperature: Annotated[float, typer.Option(help="1 follows the model; lower is tamer.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Likeliest tokens of that share are drawn from.")] = 0.95,
    max_tokens: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 256,
    frames: Frames = 8,
    seed: Annotated[int, typer.Option(help="Makes the answers repeatable.")] = 0,
    rule: Annotated[
        str, typer.Option(help="threshold (a score of 3 or more against less) or best_worst.")
    ] = "threshold",
    spelling: Annotated[
        str, typer.Option(help="Format of the pairs: messages (ms-swift), or hound (LLaVA-Hound, TRL).")
    ] = "messages",
    attempts: Annotated[int, typer.Option(help="How often a judge without a score is asked.")] = 3,
    timeout: JudgeTimeout = 60.0,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many questions.", show_default="all")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print how many calls and tokens are left, and do nothing.")
    ] = False,
) -> None:
    """Sample answers, have them judged, and write chosen and rejected ones; prints the file of pairs.

    A run that was interrupted, or had a --limit, goes on where it was. The key of a judge's server is read
    from OPENAI_API_KEY. `train dpo` learns from the pairs.
    """
    from llava_next_video.data.files import Spelling
    from llava_next_video.feedback import (
        EndpointJudge,
        Judge,
        OwnJudge,
        Rule,
        Sampled,
        WorldJudge,
        plan,
        read_questions,
    )
    from llava_next_video.feedback import prefer as run

    for name, value, known in (
        ("--rule", rule, get_args(Rule)),
        ("--spelling", spelling, ("messages", "hound")),
    ):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}; expected {' or '.join(known)}")
    if attempts < 1 or (limit is not None and limit < 1):
        raise ConfigError(f"--attempts is {attempts} and --limit {limit}; expected at least 1")
    server = judge_server(judge, judge_model, timeout, known=JUDGES)
    name = _version(model)
    sampled = Sampled(
        model=name,
        answers=answers,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_tokens,
        frames=frames,
        seed=seed,
    )
    asked = read_questions(questions, root)[:limit]
    assistant = None if dry_run and judge != "self" else load_assistant(model)
    judged_by: Judge = WorldJudge()
    if server is not None:
        judged_by = EndpointJudge(server=server)
    elif judge == "self":
        assert assistant is not None
        judged_by = OwnJudge(assistant=assistant, model=name, frames=frames)
    if assistant is None or dry_run:
        typer.echo(plan(asked, output, sampled=sampled, judge=judged_by).text)
        return
    summary = run(
        asked,
        output,
        assistant=assistant,
        sampled=sampled,
        judge=judged_by,
        rule=cast(Rule, rule),
        spelling=cast(Spelling, spelling),
        attempts=attempts,
        report=lambda line: typer.echo(line, err=True),
    )
    typer.echo(summary.text, err=True)
    if summary.undecided and not summary.verdicts and not summary.pairs:
        raise ConfigError(
            f"the judge gave no score to any of {summary.undecided:,} answers; see the reasons above, "
            "and run the same command again: the answers are kept"
        )
    typer.echo(summary.path)


def _version(model: str | None) -> str:
    """The model's name with what tells its weights, which may change in place; a hub name is enough."""
    from llava_next_video.assistant.loading import found_checkpoint
    from llava_next_video.checkpoint_name import folder_named
    from llava_next_video.model.fingerprint import whole_fingerprint

    if model is not None and folder_named(model) is None:
        return model
    return f"{model or 'default'} {whole_fingerprint(found_checkpoint(model))}"
