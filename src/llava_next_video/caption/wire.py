"""One request to a server that speaks OpenAI's chat API, and what its refusals mean."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from llava_next_video.caption.outcome import DescriberGoneError, TransientError
from llava_next_video.errors import LlavaNextVideoError

BUSY = (429, 502, 503, 504)
WRONG = (404, 405)
KEYLESS = (401, 403)
NO_KEY = "give the server's key with --api-key, or in LNV_API_KEY"
OWNER = "llava-next-video"


class RefusedError(LlavaNextVideoError):
    """The server will not describe this video; its own words."""


class BusyError(Exception):
    """The server cannot take a request now."""

    def __init__(self, told: str, wait_s: float | None = None) -> None:
        super().__init__(told)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server calls its (first) model, and whether it is a server of ours."""

    name: str
    ours: bool


def post(url: str, body: bytes, key: str | None, timeout_s: float) -> dict[str, Any]:
    """The answer to a request.

    Raises:
        BusyError: The server cannot take it now, or is not there.
        TransientError: It failed on this one, or took too long.
        RefusedError: It will not do this one.
        DescriberGoneError: It will do none: the address, model or token is wrong.
    """
    request = urllib.request.Request(url, body, _headers(key))
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return dict(json.loads(response.read()))
    except urllib.error.HTTPError as error:
        raise _judged(error, url) from error
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise TransientError(f"{url}: no answer within {timeout_s:g} s") from error
        raise BusyError(f"not reached ({reason or type(error).__name__})") from error


def chat_url(url: str) -> str:
    """Where a server takes chats.

    >>> chat_url("http://localhost:8000"), chat_url("http://localhost:8000/v1/")
    ('http://localhost:8000/v1/chat/completions', 'http://localhost:8000/v1/chat/completions')
    """
    return f"{url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"


def served_model(url: str, key: str | None = None) -> Served:
    """What a server says of its (first) model.

    Raises:
        DescriberGoneError: It does not answer, or wants another key.
    """
    models = chat_url(url).removesuffix("chat/completions") + "models"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(models, headers=_headers(key)), timeout=30
        ) as response:
            first = json.loads(response.read())["data"][0]
            return Served(name=str(first["id"]), ours=first.get("owned_by") == OWNER)
    except (
        OSError,
        http.client.HTTPException,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in KEYLESS:
            raise _judged(error, models) from error
        reason = getattr(error, "reason", error)
        raise DescriberGoneError(
            f"{models}: no server names its model there ({reason}); start it, or give --model and --send"
        ) from error


def _judged(error: urllib.error.HTTPError, url: str) -> Exception:
    """What an error status means for a video and for the run."""
    try:
        told = json.loads(error.read())["error"]["message"]
    except (ValueError, KeyError, TypeError, OSError):
        told = error.reason
    sentence = f"the server answered {error.code}: {told}"
    if error.code in BUSY:
        after = error.headers.get("Retry-After", "")
        return BusyError(sentence, float(after) if after.isdecimal() else None)
    if error.code in KEYLESS:
        return DescriberGoneError(f"{url}: {sentence}; {NO_KEY}")
    if error.code in WRONG:
        return DescriberGoneError(f"{url}: {sentence}")
    return TransientError(sentence) if error.code >= 500 or error.code == 408 else RefusedError(sentence)


def _headers(key: str | None) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
