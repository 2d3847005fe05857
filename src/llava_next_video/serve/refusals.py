"""What went wrong, as status and OpenAI's error envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llava_next_video.errors import (
    CapacityError,
    LlavaNextVideoError,
    MediaError,
    MediaLimitError,
    PromptError,
    SamplingError,
)

CODES: tuple[tuple[type[LlavaNextVideoError], str], ...] = (
    (MediaLimitError, "media_too_large"),
    (MediaError, "media_unreadable"),
    (PromptError, "invalid_prompt"),
    (SamplingError, "invalid_value"),
    (CapacityError, "context_length_exceeded"),
)


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is an error; raised anywhere, told once."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: int | None = None

    @property
    def body(self) -> dict[str, object]:
        """OpenAI's envelope."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error"
        )
        kind = kind if self.status < 500 else "server_error"
        told = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": told}

    @property
    def headers(self) -> dict[str, str]:
        """What goes into the head of the answer."""
        extra = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return extra | ({} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)})


def refusal_of(error: BaseException) -> Refusal:
    """What a client is told of an error: our own sentences as they are, of anything else only that it was.

    >>> refusal_of(MediaError("clip.mp4: no video stream")).status
    400
    >>> refusal_of(ZeroDivisionError("secret")).message
    'the server failed on this request; its log says why'
    """
    if isinstance(error, Refusal):
        return error
    for kind, code in CODES:
        if isinstance(error, kind):
            return Refusal(400, _public(str(error)), code)
    if isinstance(error, LlavaNextVideoError):
        return Refusal(400, str(error), "invalid_request")
    return Refusal(500, "the server failed on this request; its log says why", "internal_error")


def refusal_of_option(error: SamplingError, names: Mapping[str, str]) -> Refusal:
    """What a client is told of an option outside its range, by the name that the request has for it.

    >>> error = SamplingError("max_new_tokens is 0; ask for more")
    >>> refusal = refusal_of_option(error, {"max_new_tokens": "max_tokens"})
    >>> refusal.param, refusal.message
    ('max_tokens', 'max_tokens is 0; ask for more')
    """
    words = [names.get(word, word) for word in re.split(r"\b", str(error))]
    param = next((word for word in words if word in names.values()), None)
    return Refusal(400, "".join(words), "invalid_value", param)


def _public(sentence: str) -> str:
    """The sentence without the addresses of a private network.

    >>> _public("cdn.example.org: at 10.0.0.7, which is not on the public internet; FetchPolicy(...)")
    'cdn.example.org: its address is not on the public internet'
    """
    host, at, rest = sentence.partition(": at ")
    hidden = at and "not on the public internet" in rest
    return f"{host}: its address is not on the public internet" if hidden else sentence
