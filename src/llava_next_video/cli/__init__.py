"""One command, a few verbs.

The verbs import their rooms when they are called, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from llava_next_video.cli.ask import ask
from llava_next_video.cli.bench import bench
from llava_next_video.cli.caption import caption
from llava_next_video.cli.chat import chat
from llava_next_video.cli.convert import convert
from llava_next_video.cli.env import env
from llava_next_video.cli.evaluate import evaluate
from llava_next_video.cli.prefer import prefer
from llava_next_video.cli.serve import serve
from llava_next_video.cli.told import in_flags
from llava_next_video.cli.train import train
from llava_next_video.cli.world import world
from llava_next_video.errors import LlavaNextVideoError

INTERRUPTED = 130

app = typer.Typer(
    name="llava-next-video",
    help="Ask questions about videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog='Example: `llava-next-video ask clip.mp4 "What happens?" --frames 8`')(ask)
app.command(epilog="Example: `llava-next-video caption videos/ --output captions`")(caption)
app.command(epilog="Example: `llava-next-video chat clip.mp4 --frames 16`")(chat)
app.command(epilog="Example: `llava-next-video serve --port 8000 --allow-media-path videos`")(serve)
app.command(epilog="Example: `llava-next-video bench --videos 4 --questions 4 --quantize int8`")(bench)
app.command(epilog="Example: `llava-next-video env`")(env)
app.command(epilog="Example: `llava-next-video prefer questions.jsonl --output feedback --dry-run`")(prefer)
app.add_typer(convert, name="convert")
app.add_typer(evaluate, name="evaluate")
app.add_typer(train, name="train")
app.add_typer(world, name="world")


def _version(wanted: bool | None) -> None:
    if wanted:
        from llava_next_video import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = None,
) -> None:
    """Ask questions about videos."""


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 1, a wrong usage exit code 2."""
    sys.exit(run())


def run() -> int:
    """The exit code of the command that stands in `sys.argv`."""
    try:
        # Named here, or `python -m` would stand in the help as what to type.
        return app(standalone_mode=False, prog_name="llava-next-video") or 0
    except TyperException as error:
        # An unknown flag is a mistake with a name (and a suggestion); a missing argument is wrong usage.
        unknown = type(error).__name__ == "NoSuchOption"
        return _refuse(error.format_message(), code=1 if unknown else error.exit_code)
    except LlavaNextVideoError as error:
        return _refuse(in_flags(str(error)))
    except OSError as error:
        if error.filename is None:
            return _refuse(str(error))
        return _refuse(f"{error.filename}: {error.strerror}")
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _refuse(sentence: str, code: int = 1) -> int:
    if not sentence:  # the help was shown instead
        return code
    typer.echo(f"llava-next-video: {' '.join(sentence.split())}", err=True)
    return code
