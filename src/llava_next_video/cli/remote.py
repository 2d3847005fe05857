"""Ask a running server one question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from llava_next_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_next_video.media import Sampling

Servers = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        help="URL of a running server to ask; of several, the one that knows the video.",
        show_default="none",
    ),
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="LNV_API_KEY", help="Key of the server.", show_default="none")
]


def refuse_here(flags: Mapping[str, object]) -> None:
    """Raise when a flag was given that is for a model of this process, beside `--server`.

    Raises:
        ConfigError: Its name.
    """
    if given := [flag for flag, value in flags.items() if value]:
        raise ConfigError(f"{given[0]} is for a model that is loaded here; leave it out with --server")


def ask_server(
    servers: Sequence[str],
    media: Sequence[str],
    question: str,
    *,
    api_key: str | None,
    sampling: Sampling,
    options: Mapping[str, object],
    not_for_servers: Mapping[str, object],
    as_json: bool,
    usage: bool,
) -> None:
    """Print the answer of the server that knows the first medium, or of the first that is there.

    Raises:
        ConfigError: A flag that a server does not take, or no server.
        MediaError: A medium that is no file.
    """
    refuse_here(not_for_servers)
    if sampling.how == "linspace":
        raise ConfigError("--sampler linspace is not known to servers; leave it out with --server")
    from llava_next_video.cli.talkers import fields
    from llava_next_video.serve.client import Attached, Said, ServerClient, Told

    turn = Said(role="user", text=question, media=tuple(Attached.of(medium) for medium in media))
    told = None
    for piece in ServerClient(servers, api_key=api_key).stream([turn], fields(sampling, options)):
        if isinstance(piece, Told):
            told = piece
        elif not as_json:
            typer.echo(piece, nl=False)
    assert told is not None, "a stream ends with the whole answer"
    record = {
        "question": question,
        "answer": told.text,
        "finish_reason": told.finish_reason,
        "usage": told.usage,
        "media": told.media,
    }
    typer.echo(json.dumps(record, ensure_ascii=False) if as_json else "")
    if usage:
        typer.echo(json.dumps(told.usage), err=True)
