"""Whoever answers in the terminal: a model in this process, or a server."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

from llava_next_video.assistant import Answer, VideoAssistant
from llava_next_video.media import Clip, Picture, Sampling, read_clip, read_image
from llava_next_video.serve.client import Attached, Said, ServerClient, Told


@runtime_checkable
class Talker(Protocol):
    """Whoever answers: a model in this process, or a server."""

    def answer(
        self, turns: Sequence[Said], sampling: Sampling, options: Mapping[str, object]
    ) -> Generator[str | Told]:
        """The pieces of the next turn, then the whole of it."""


class Local:
    """A model in this process; each clip is read once."""

    def __init__(self, assistant: VideoAssistant) -> None:
        self._assistant = assistant
        self._seen: dict[tuple[str, Sampling], Clip | Picture] = {}

    def answer(
        self, turns: Sequence[Said], sampling: Sampling, options: Mapping[str, object]
    ) -> Generator[str | Told]:
        """The pieces of the next turn, then the whole of it."""
        messages = [
            {
                "role": turn.role,
                "content": [
                    *({"type": one.kind, one.kind: self._see(one, sampling)} for one in turn.media),
                    {"type": "text", "text": turn.text},
                ],
            }
            for turn in turns
        ]
        settings: dict[str, Any] = dict(options)
        with closing(self._assistant.stream_chat(messages, **settings)) as pieces:
            for piece in pieces:
                yield _told(piece) if isinstance(piece, Answer) else piece

    def _see(self, one: Attached, sampling: Sampling) -> Clip | Picture:
        key = (one.name, sampling)
        if key not in self._seen:
            self._seen[key] = look(one, sampling)
        return self._seen[key]


class Remote:
    """One server or several."""

    def __init__(self, servers: Sequence[str], api_key: str | None) -> None:
        self._client = ServerClient(servers, api_key=api_key)

    def answer(
        self, turns: Sequence[Said], sampling: Sampling, options: Mapping[str, object]
    ) -> Generator[str | Told]:
        """The pieces of the next turn, then the whole of it."""
        return self._client.stream(turns, fields(sampling, options))


def look(one: Attached, sampling: Sampling) -> Clip | Picture:
    """An attached medium as a model would see it."""
    return read_clip(one.source, sampling) if one.kind == "video" else read_image(one.source)


def fields(sampling: Sampling, options: Mapping[str, object]) -> dict[str, object]:
    """Our settings in the names of the chat API.

    >>> fields(Sampling(frames=4), {"max_new_tokens": 9, "temperature": 0.5})
    {'max_tokens': 9, 'temperature': 0.5, 'media_io_kwargs': {'video': {'num_frames': 4}}}
    """
    renamed = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens"}
    video: dict[str, object] = {"num_frames": sampling.frames}
    if sampling.per_second is not None:
        video["fps"] = sampling.per_second
    named = {renamed.get(name, name): value for name, value in options.items() if value is not None}
    return {**named, "media_io_kwargs": {"video": video}}


def _told(answer: Answer) -> Told:
    usage = {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.usage.cached_tokens},
    }
    return Told(text=answer.text, finish_reason=answer.finish_reason, usage=usage, media=())
