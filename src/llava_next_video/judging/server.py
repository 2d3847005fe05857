"""A model behind OpenAI's chat API, asked in words."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from llava_next_video.errors import ConfigError
from llava_next_video.judging.attempts import UndecidedError, UnreachedError

HOPELESS = (400, 401, 403, 404, 405)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatServer:
    """Answers greedily; may be asked by several threads.

    Raises:
        ConfigError: An address that is none, or one elsewhere (https) without a key.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    max_tokens: int = 256

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"judge {self.url!r}; expected a URL such as http://127.0.0.1:8000/v1")
        if parts.scheme == "https" and not self.key:
            raise ConfigError(f"judge {self.url}: no key; set OPENAI_API_KEY to the one that it wants")

    def reply(self, *, system: str, prompt: str) -> str:
        """What the model says.

        Raises:
            UndecidedError: Not reached, busy, or no chat completion; it may be different next time.
            ConfigError: It will never answer: the address, the model's name or the key is wrong.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        content = self._post(json.dumps(body).encode())
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UndecidedError(
                "the reply is no chat completion", content[:500].decode("utf-8", "replace")
            ) from error
        return text if isinstance(text, str) else ""

    def _post(self, body: bytes) -> bytes:
        url = f"{self.url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            error.close()
            told = f"the judge answered {error.code} {error.reason}"
            if error.code in HOPELESS:
                raise ConfigError(f"{url}: {told}; see the address, the model's name and the key") from error
            raise UndecidedError(told) from error
        except (http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise UndecidedError(f"no reply within {self.timeout_s:g} s") from error
            raise UnreachedError(f"not reached ({reason or type(error).__name__})") from error
