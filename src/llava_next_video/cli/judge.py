"""The server of a judge, as options name it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.judging import ChatServer

JudgeModel = Annotated[
    str | None, typer.Option(help="With a URL: what the server calls its model.", show_default="none")
]
JudgeTimeout = Annotated[float, typer.Option(help="Seconds that a judge behind a URL may take.")]


def judge_server(
    judge: str | None, model: str | None, timeout_s: float, *, known: Sequence[str]
) -> ChatServer | None:
    """The server that `--judge` and `--judge-model` name; None where it is a known judge, or nobody.

    The key is read from OPENAI_API_KEY.

    Raises:
        ConfigError: `--judge` is neither known nor a URL, or one of the two is missing.
    """
    from llava_next_video.judging import ChatServer

    url = None if judge is None or judge in known else judge
    if url is not None and "://" not in url:
        raise ConfigError(f"--judge is {judge!r}; expected {', '.join(known)}, or the URL of a server")
    if url is not None and model is not None:
        return ChatServer(url=url, model=model, key=os.environ.get("OPENAI_API_KEY"), timeout_s=timeout_s)
    if url is not None or model is not None:
        raise ConfigError("--judge-model goes with a judge's URL: give both, so that scores name their judge")
    return None
