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
MEDIA_KEYS = ("image", "images", "video", "videos")
IMAGE_SOURCES = ("image", "image_url", "url", "path", "base64")
VIDEO_SOURCES = ("video", "video_url", "url", "path", "base64")
AS_A_PART = 'a clip is a part of the content: {"type": "video", "path": "clip.mp4"}'


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


def read_messages(messages: object, *, strict: bool = False) -> tuple[Turn, ...]:
    """The turns of a conversation in any of the three spellings.

    Samples and chat templates carry keys for others, which are passed over. With `strict` they are refused,
    and the media that stand beside a message of LLaVA's, under the names that its samples have for them,
    take the places of its placeholders.

    >>> read_messages([{"role": "user", "content": "Hello"}])
    (Turn(role='user', parts=(Text(text='Hello'),)),)
    >>> read_messages([{"from": "human", "value": "<video>\\nWhy?"}])[0].parts
    (Video(source=None), Text(text='Why?'))
    >>> read_messages([{"from": "human", "value": "<video>\\nWhy?", "video": "a.mp4"}], strict=True)[0].media
    (Video(source='a.mp4'),)

    Raises:
        PromptError: A message, role, part or (`strict`) key that none of the spellings knows, or media that
            are not as many as their placeholders; the place is named.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Iterable):
        raise PromptError(f"expected a list of messages, got {type(messages).__name__}")
    turns = tuple(
        message if isinstance(message, Turn) else _read_message(message, f"message {number}", strict)
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


def _read_message(message: object, place: str, strict: bool) -> Turn:
    if not isinstance(message, Mapping):
        raise PromptError(f"{place}: expected a mapping with role and content, got {type(message).__name__}")
    if "from" in message and "value" in message:
        role = LLAVA_ROLES.get(str(message["from"]))
        if role is None:
            raise PromptError(
                f"{place}: 'from' is {message['from']!r}; expected one of {sorted(LLAVA_ROLES)}"
            )
        value = message["value"]
        if not isinstance(value, str | int | float):
            raise PromptError(
                f"{place}: 'value' is {type(value).__name__}; expected text such as '<video>\\nWhy?'; "
                "parts are the 'content' of a message with a 'role'"
            )
        parts = _read_llava_value(str(value))
        if strict:
            _refuse_others(message, ("from", "value", *MEDIA_KEYS), place)
            parts = _filled(parts, message, place)
        return Turn(role=role, parts=parts)
    if "role" not in message or "content" not in message:
        raise PromptError(f"{place}: expected 'role' and 'content', got {sorted(map(str, message))}")
    if strict:
        _refuse_others(message, ("role", "content"), place, silent=("id", "type", "status"), hint=AS_A_PART)
    role = _read_role(message["role"], place)
    content = message["content"]
    if isinstance(content, str):
        return Turn(role=role, parts=(Text(text=content),))
    if isinstance(content, Mapping) or not isinstance(content, Sequence):
        raise PromptError(f"{place}: content is {type(content).__name__}; expected text or a list of parts")
    return Turn(
        role=role,
        parts=tuple(
            _read_part(part, f"{place}, part {number}", strict) for number, part in enumerate(content)
        ),
    )


def _read_role(role: object, place: str) -> Role:
    if role == "developer":
        return "system"
    if role not in ("system", "user", "assistant"):
        raise PromptError(f"{place}: role is {role!r}; expected system, user or assistant")
    return role


def _read_part(part: object, place: str, strict: bool) -> Part:
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
            if strict:
                _refuse_others(part, ("type", "text"), place, hint=AS_A_PART)
            return Text(text=cast(str, part["text"]))
        case "image" | "input_image" | "image_url":
            if strict:
                seen_in_full = ("detail",) if part.get("detail") == "auto" else ()
                _refuse_others(part, ("type", *IMAGE_SOURCES), place, silent=seen_in_full)
            return Image(source=_source(part, IMAGE_SOURCES, place))
        case "video" | "input_video" | "video_url":
            if strict:
                _refuse_others(part, ("type", *VIDEO_SOURCES), place)
            return Video(source=_source(part, VIDEO_SOURCES, place))
    raise PromptError(f"{place}: type is {kind!r}; expected text, image, image_url, video or video_url")


def _refuse_others(
    given: Mapping[object, object],
    known: Sequence[str],
    place: str,
    *,
    silent: Sequence[str] = (),
    hint: str = "",
) -> None:
    """Raise for a key that nobody would read; None and empty lists ask for nothing.

    `silent` are keys that clients send back with an answer, and that change nothing.
    """
    for key, value in given.items():
        if key in known or key in silent or value is None or (isinstance(value, list) and not value):
            continue
        told = f"{place}: unknown key {key!r}; known: {', '.join(known)}"
        raise PromptError(f"{told}; {hint}" if hint else told)


def _filled(parts: tuple[Part, ...], message: Mapping[object, object], place: str) -> tuple[Part, ...]:
    """The parts of a LLaVA message with the media that stand beside its text.

    Without placeholders media come first, as the checkpoints were trained. `<image>` may stand for a clip
    where no picture is given: LLaVA's samples write it so.
    """
    pictures, clips = _beside(message, "image"), _beside(message, "video")
    if not pictures and not clips:
        return parts
    if all(isinstance(part, Text) for part in parts):
        return (*(Image(source=one) for one in pictures), *(Video(source=one) for one in clips), *parts)
    open_parts = [part for part in parts if not isinstance(part, Text)]
    wanted_pictures = sum(isinstance(part, Image) for part in open_parts) if pictures or not clips else 0
    if (wanted_pictures, len(open_parts) - wanted_pictures) != (len(pictures), len(clips)):
        raise PromptError(
            f"{place}: {len(open_parts)} <image> or <video> in its text, but {len(pictures)} pictures and "
            f"{len(clips)} clips beside it; give one medium of its kind for each"
        )
    queues = {Image: iter(pictures), Video: iter(clips)}
    filled: list[Part] = []
    for part in parts:
        if isinstance(part, Text):
            filled.append(part)
        elif isinstance(part, Image) and pictures:
            filled.append(Image(source=next(queues[Image])))
        else:
            filled.append(Video(source=next(queues[Video])))
    return tuple(filled)


def _beside(message: Mapping[object, object], kind: Literal["image", "video"]) -> list[object]:
    """The media under `image` and `images`, or `video` and `videos`; a list holds several."""
    given = [message[key] for key in (kind, f"{kind}s") if message.get(key) is not None]
    return [one for value in given for one in (value if isinstance(value, list) else [value])]


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
