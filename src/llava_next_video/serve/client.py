"""Ask a running server, or the one of several that knows the video."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import mimetypes
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llava_next_video.errors import ConfigError, LlavaNextVideoError, MediaError
from llava_next_video.media.fetch import is_url
from llava_next_video.serve.routing import HEADER, ranked

UNKNOWN = "media_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A clip or picture in a file, or behind a URL that the server can reach."""

    source: str
    name: str
    kind: str

    @classmethod
    def of(cls, source: str | Path) -> Attached:
        """What a path or URL holds, by its name.

        Raises:
            MediaError: No such file, or a folder.
        """
        text = str(source)
        kind = mimetypes.guess_type(text.partition("?")[0])[0] or ""
        still = (kind.startswith("image/") and kind != "image/gif") or text.startswith("data:image/")
        if is_url(text):
            name = hashlib.sha256(text.encode()).hexdigest()
        else:
            path = Path(source)
            if not path.is_file():
                raise MediaError(f"{path}: no such file; a server is sent one clip or picture in a file")
            name = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(source=text, name=name, kind="image" if still else "video")

    def part(self, *, whole: bool) -> dict[str, object]:
        """A part of a message: by name alone, or with what is behind it."""
        part: dict[str, object] = {"type": f"{self.kind}_url", "uuid": self.name}
        if whole:
            part[f"{self.kind}_url"] = {"url": self._url()}
        return part

    def _url(self) -> str:
        if is_url(self.source):
            return self.source
        mime = mimetypes.guess_type(self.source)[0] or "video/mp4"
        return f"data:{mime};base64,{base64.b64encode(Path(self.source).read_bytes()).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One turn of a conversation."""

    role: str
    text: str
    media: tuple[Attached, ...] = ()

    def message(self, *, whole: bool) -> dict[str, object]:
        """As the API spells it, media first."""
        parts = [*(one.part(whole=whole) for one in self.media), {"type": "text", "text": self.text}]
        return {"role": self.role, "content": parts if self.media else self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A whole answer, with the usage and the media as the server reports them."""

    text: str
    finish_reason: str | None
    usage: Mapping[str, object]
    media: Sequence[Mapping[str, object]]


class _Refused(LlavaNextVideoError):
    """What a server answered instead; `code` is its name for it."""

    def __init__(self, message: str, code: str | None) -> None:
        super().__init__(message)
        self.code = code


class ServerClient:
    """Talks to servers by their root URLs; questions about one medium go to the same server."""

    def __init__(
        self, servers: Sequence[str], *, api_key: str | None = None, timeout_s: float = 600.0
    ) -> None:
        """`timeout_s` is how long to wait for the next word."""
        self._servers = [server.rstrip("/").removesuffix("/v1") for server in servers]
        for server in self._servers:
            if urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).hostname:
                raise ConfigError(f"server {server!r}; expected a URL such as http://127.0.0.1:8000")
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s

    def stream(self, turns: Sequence[Said], options: Mapping[str, object]) -> Generator[str | Told]:
        """The pieces of the next turn as they come, then the whole of it; closing it stops the server.

        `options` are fields of the chat API. A medium is sent by its name, and with its bytes where the
        server does not know it.

        Raises:
            ConfigError: No server answers.
            LlavaNextVideoError: The server refuses; its sentence.
        """
        media = [one for turn in turns for one in turn.media]
        key = media[0].name if media else turns[0].text
        try:
            yield from self._stream(turns, options, key, whole=False)
        except _Refused as refused:
            if refused.code != UNKNOWN:
                raise
            yield from self._stream(turns, options, key, whole=True)

    def _stream(
        self, turns: Sequence[Said], options: Mapping[str, object], key: str, *, whole: bool
    ) -> Generator[str | Told]:
        messages = [turn.message(whole=whole) for turn in turns]
        body = {
            "messages": messages,
            **options,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        text, finish = "", None
        usage: Mapping[str, object] = {}
        seen: Sequence[Mapping[str, object]] = ()
        with closing(self._post("/v1/chat/completions", body, key)) as events:
            for event in events:
                if "error" in event:
                    raise LlavaNextVideoError(event["error"]["message"])
                usage, seen = event.get("usage") or usage, event.get("media") or seen
                for choice in event["choices"]:
                    finish = choice["finish_reason"] or finish
                    if piece := choice["delta"].get("content"):
                        text += piece
                        yield piece
        yield Told(text=text, finish_reason=finish, usage=usage, media=seen)

    def _post(self, path: str, body: Mapping[str, object], key: str) -> Generator[dict[str, Any]]:
        """The events of an answer, of the first of the servers in the key's order that is there."""
        content = json.dumps(body).encode()
        failure: OSError | None = None
        for server in ranked(key, self._servers):
            parts = urlsplit(server)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            line = kind(parts.hostname or "", parts.port, timeout=self._timeout_s)
            with closing(line):
                try:
                    line.connect()
                except OSError as error:
                    failure = error
                    continue
                headers = {**self._headers, HEADER: hashlib.sha256(key.encode()).hexdigest()}
                try:
                    line.request("POST", parts.path + path, content, headers)
                    yield from _events(line.getresponse(), server)
                except (OSError, http.client.HTTPException) as error:
                    raise LlavaNextVideoError(f"{server}: the connection broke off ({error})") from error
                return
        named = ", ".join(self._servers)
        raise ConfigError(
            f"{named}: no server answers there ({failure}); start one: llava-next-video serve"
        ) from failure


def _events(answer: http.client.HTTPResponse, server: str) -> Iterator[dict[str, Any]]:
    if answer.status != 200:
        try:
            error = json.loads(answer.read())["error"]
            message, code = error["message"], error["code"]
        except (ValueError, KeyError, TypeError):
            message, code = f"{server}: answered {answer.status} {answer.reason}", None
        raise _Refused(message, code)
    for line in answer:
        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
            yield json.loads(line[6:])
