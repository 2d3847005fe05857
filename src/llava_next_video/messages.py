"""A conversation: roles, words, pictures and clips.

Reads the three spellings in use: Hugging Face chat, OpenAI chat, LLaVA's `from`/`value`. Opens no medium: a
source (path, URL, bytes, array) is carried along as it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from llava_next_video.errors import PromptError

Role = Literal["system", "user", "assistant"]

LLAVA_ROLES: Mapping[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Words, as they were written."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture; `source` is None where the picture is handed over beside the conversation."""

    source: object | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A clip; `source` is None where the clip is handed over beside the conversation."""

    source: object | None = None


Part = Text | Image | Video


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side said, in order."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The words of the turn, without its media."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def media(self) -> tuple[Image | Video, ...]:
        """The media of the turn, in order."""
        return tuple(part for part in self.parts if not isinstance(part, Text))


def user(question: str, media: Sequence[Image | Video] = ()) -> Turn:
    """A user's turn: media first, as the checkpoints were trained, then the question."""
    return Turn(role="user", parts=(*media, Text(text=question)))


def read_messages(messages: object) -> tuple[Turn, ...]:
    """The turns of a conversation in any of the three spellings.

    >>> read_messages([{"role": "user", "content": "Hello"}])
    (Turn(role='user', parts=(Text(text='Hello'),)),)
    >>> read_messages([{"from": "human", "value": "<video>\\nWhy?"}])[0].parts
    (Video(source=None), Text(text='Why?'))

    Raises:
        PromptError: A message, role or part that none of the spellings knows; its place is named.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Iterable):
        raise PromptError(f"expected a list of messages, got {type(messages).__name__}")
    turns = tuple(
        message if isinstance(message, Turn) else _read_message(message, f"message {number}")
        for number, message in enumerate(messages)
    )
    if not turns:
        raise PromptError("the conversation is empty; give at least one message")
    return turns


def as_chat(turns: Sequence[Turn]) -> list[dict[str, object]]:
    """The turns as Hugging Face chat messages: what chat templates read."""
    return [{"role": turn.role, "content": [_as_content(part) for part in turn.parts]} for turn in turns]


def _as_content(part: Part) -> dict[str, object]:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Image():
            return {"type": "image"}
        case Video():
            return {"type": "video"}


def _read_message(message: object, place: str) -> Turn:
    if not isinstance(message, Mapping):
        raise PromptError(f"{place}: expected a mapping with role and content, got {type(message).__name__}")
    if "from" in message and "value" in message:
        role = LLAVA_ROLES.get(str(message["from"]))
        if role is None:
            raise PromptError(
                f"{place}: 'from' is {message['from']!r}; expected one of {sorted(LLAVA_ROLES)}"
            )
        return Turn(role=role, parts=_read_llava_value(str(message["value"])))
    if "role" not in message or "content" not in message:
        raise PromptError(f"{place}: expected 'role' and 'content', got {sorted(map(str, message))}")
    role = _read_role(message["role"], place)
    content = message["content"]
    if isinstance(content, str):
        return Turn(role=role, parts=(Text(text=content),))
    if isinstance(content, Mapping) or not isinstance(content, Sequence):
        raise PromptError(f"{place}: content is {type(content).__name__}; expected text or a list of parts")
    return Turn(
        role=role,
        parts=tuple(_read_part(part, f"{place}, part {number}") for number, part in enumerate(content)),
    )


def _read_role(role: object, place: str) -> Role:
    if role == "developer":
        return "system"
    if role not in ("system", "user", "assistant"):
        raise PromptError(f"{place}: role is {role!r}; expected system, user or assistant")
    return role


def _read_part(part: object, place: str) -> Part:
    if isinstance(part, Text | Image | Video):
        return part
    if isinstance(part, str):
        return Text(text=part)
    if not isinstance(part, Mapping):
        raise PromptError(f"{place}: expected a mapping with a type, got {type(part).__name__}")
    kind = part.get("type")
    match kind:
        case "text" | "input_text" | "output_text":
            if not isinstance(part.get("text"), str):
                raise PromptError(f"{place}: a text part needs 'text'; got {sorted(map(str, part))}")
            return Text(text=cast(str, part["text"]))
        case "image" | "input_image" | "image_url":
            return Image(source=_source(part, ("image", "image_url", "url", "path", "base64"), place))
        case "video" | "input_video" | "video_url":
            return Video(source=_source(part, ("video", "video_url", "url", "path", "base64"), place))
    raise PromptError(f"{place}: type is {kind!r}; expected text, image, image_url, video or video_url")


def _source(part: Mapping[object, object], keys: Sequence[str], place: str) -> object | None:
    """The medium behind the first key that is there, unwrapping OpenAI's `{"url": ...}`."""
    given = [key for key in keys if part.get(key) is not None]
    if len(given) > 1:
        raise PromptError(f"{place}: names its medium {len(given)} times ({', '.join(given)}); keep one")
    if not given:
        return None
    source = part[given[0]]
    if isinstance(source, Mapping):
        if source.get("url") is None:
            raise PromptError(f"{place}: {given[0]!r} needs a 'url'; got {sorted(map(str, source))}")
        return cast(object, source["url"])
    return source


def _read_llava_value(value: str) -> tuple[Part, ...]:
    """LLaVA writes a placeholder before the words, or behind them, on a line of its own.

    The line break is no part of the words: templates write their own behind each medium.

    Source: LLaVA-NeXT, `llava/train/train.py`, `preprocess_multimodal`.
    """
    parts: list[Part] = []
    for piece in re.split(r"(\n?<(?:image|video)>\s*\Z|<(?:image|video)>\n?)", value):
        if "<image>" in piece:
            parts.append(Image())
        elif "<video>" in piece:
            parts.append(Video())
        elif piece:
            parts.append(Text(text=piece))
    return tuple(parts)
