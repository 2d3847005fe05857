"""A conversation in the terminal: what was said, what is attached, and the commands."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import typer
from rich.console import Console

from llava_next_video.assistant.options import options_from
from llava_next_video.cli.drawing import drawn
from llava_next_video.cli.talkers import Talker, look
from llava_next_video.errors import ConfigError, LlavaNextVideoError
from llava_next_video.media import Sampling
from llava_next_video.media.fetch import is_url
from llava_next_video.serve.client import Attached, Said, Told

HELP = """\
/video PATH [FRAMES]  talk about a clip        /image PATH  talk about a picture
/frames               draw what is looked at   /set NAME VALUE  e.g. temperature 0.7, frames 16
/system TEXT          tell the model first     /retry       answer the last question again
/save FILE            write the talk as JSON   /clear       forget what was said
/help                 this                     /bye         end (also Ctrl-D)
A path in a line attaches the file. Ctrl-C stops an answer. Commands may also begin with "!"."""


class Session:
    """What was said, what is attached, and how answers are chosen."""

    def __init__(
        self, talker: Talker, *, frames: int, system: str | None, options: Mapping[str, object]
    ) -> None:
        options_from(options)
        self.talker = talker
        self.sampling = Sampling(frames=frames)
        self.system = system
        self.options = dict(options)
        self.turns: list[Said] = []
        self.attached: list[Attached] = []
        self._notes = Console(stderr=True, highlight=False)
        self._commands: Mapping[str, Callable[[list[str]], None]] = {
            "video": self._video,
            "image": lambda words: self.attach(_one(words, "/image PATH")),
            "frames": lambda _: self._frames(),
            "set": self._set,
            "system": self._system,
            "retry": lambda _: self._retry(),
            "save": self._save,
            "clear": lambda _: self._clear(),
            "help": lambda _: self.note(HELP),
        }

    def run(self) -> None:
        """Talk until the end."""
        self.note("Ask away; /help lists the commands.")
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.note("(/bye ends)")
                continue
            if line in ("/bye", "/exit", "/quit", "!bye", "!exit"):
                return
            try:
                self.take(line)
            except (LlavaNextVideoError, OSError) as error:
                self.note(str(error), style="red")

    def take(self, line: str) -> None:
        """One line: a command, a path, or a question."""
        if line[:1] in ("/", "!") and not Path(line.split()[0]).exists():
            name, *words = _words(line[1:])
            if name not in self._commands:
                raise ConfigError(
                    f"unknown command {name!r}; known: {', '.join(sorted(self._commands))}, bye"
                )
            self._commands[name](words)
            return
        words = []
        for word in _words(line):
            if _is_file(word):
                self.attach(word)
            else:
                words.append(word)
        if len(words) == len(_words(line)):
            words = [line]
        if text := " ".join(words).strip():
            self.ask(text)

    def attach(self, source: str) -> None:
        """Talk about a file or URL, together with what else was attached since the last question."""
        one = Attached.of(Path(source).expanduser() if not is_url(source) else source)
        self.attached.append(one)
        self.note(f"attached {one.kind} {source}")

    def ask(self, text: str) -> None:
        """Ask, write the answer while it comes, and say how fast it came."""
        if self.attached:
            self.turns = []
        self.turns.append(Said(role="user", text=text, media=tuple(self.attached)))
        media, self.attached = self.attached, []
        try:
            self._answer()
        except LlavaNextVideoError:
            self.turns.pop()
            self.attached = media
            raise

    def note(self, text: str, style: str = "dim") -> None:
        """Say something beside the answers, on stderr."""
        self._notes.print(text, style=style, markup=False)

    def _answer(self) -> None:
        first = [Said(role="system", text=self.system)] if self.system else []
        began, text = time.monotonic(), ""
        began_words = began
        told: Told | None = None
        with closing(self.talker.answer([*first, *self.turns], self.sampling, self.options)) as pieces:
            try:
                for piece in pieces:
                    if isinstance(piece, Told):
                        told = piece
                        continue
                    began_words = began_words if text else time.monotonic()
                    text += piece
                    typer.echo(piece, nl=False)
            except KeyboardInterrupt:
                pass
            finally:
                if text:
                    typer.echo()
        self.turns.append(Said(role="assistant", text=text))
        self.note("(stopped)" if told is None else cost(told, began, began_words))

    def _video(self, words: list[str]) -> None:
        if len(words) == 2:
            self._set(["frames", words.pop()])
        self.attach(_one(words, "/video PATH [FRAMES]"))

    def _frames(self) -> None:
        media = self.attached or [one for turn in self.turns for one in turn.media]
        if not media:
            raise ConfigError("nothing is attached; /video PATH attaches a clip")
        for one in media:
            self._notes.print(drawn(look(one, self.sampling), self._notes.width))

    def _set(self, words: list[str]) -> None:
        if len(words) != 2:
            known = {"frames": self.sampling.frames, "fps": self.sampling.per_second, **self.options}
            self.note(", ".join(f"{name} {value}" for name, value in known.items()))
            return
        name, value = words[0], _value(words[1])
        if name == "frames":
            if not isinstance(value, int):
                raise ConfigError(f"frames is {value!r}; expected a whole number")
            self.sampling = Sampling(frames=value)
        elif name == "fps":
            if not isinstance(value, int | float):
                raise ConfigError(f"fps is {value!r}; expected a number")
            self.sampling = Sampling(how="fps", per_second=value, frames=64)
        else:
            options_from({**self.options, name: value})
            self.options[name] = value

    def _system(self, words: list[str]) -> None:
        self.system = " ".join(words) or None

    def _retry(self) -> None:
        while self.turns and self.turns[-1].role == "assistant":
            self.turns.pop()
        if not self.turns:
            raise ConfigError("nothing was asked yet")
        self._answer()

    def _save(self, words: list[str]) -> None:
        path = Path(_one(words, "/save FILE")).expanduser()
        turns = [
            {"role": turn.role, "text": turn.text, "media": [one.source for one in turn.media]}
            for turn in self.turns
        ]
        path.write_text(json.dumps(turns, ensure_ascii=False, indent=2) + "\n")
        self.note(f"saved {len(turns)} turns to {path}")

    def _clear(self) -> None:
        self.turns, self.attached = [], []


def cost(told: Told, began_s: float, words_s: float) -> str:
    """A line about an answer that has just ended: its tokens, their rate, the wait, what was cached."""
    now = time.monotonic()
    tokens = told.usage.get("completion_tokens", 0)
    details = told.usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens", 0) if isinstance(details, Mapping) else 0
    rate = (tokens if isinstance(tokens, int) else 0) / max(now - words_s, 0.001)
    told_cached = f", {cached} of {told.usage.get('prompt_tokens')} prompt tokens cached" if cached else ""
    return f"{tokens} tokens, {rate:.1f} a second, first after {words_s - began_s:.2f} s{told_cached}"


def _words(line: str) -> list[str]:
    """The words of a line as a shell would part them; a lonely quotation mark is a letter."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _is_file(word: str) -> bool:
    try:
        return Path(word).expanduser().is_file()
    except (OSError, ValueError):
        return False


def _one(words: list[str], usage: str) -> str:
    if len(words) != 1:
        raise ConfigError(f"expected {usage}")
    return words[0]


def _value(word: str) -> object:
    try:
        return json.loads(word)
    except ValueError:
        return word
