"""A judge behind OpenAI's chat API, who reads a caption in place of the video."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

from llava_next_video.errors import ConfigError
from llava_next_video.feedback.judges import UndecidedError, Verdict
from llava_next_video.feedback.questions import Asked
from llava_next_video.feedback.rubric import SYSTEM, VERSION, judge_prompt, read_score

HOPELESS = (400, 401, 403, 404, 405)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointJudge:
    """Asks a server for a grade; `version` covers the rubric's words, `model` should name a pinned model."""

    url: str
    model: str
    key: str | None = None
    timeout_s: float = 60.0
    max_tokens: int = 256
    at_once: int = 8
    version: str = VERSION

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ConfigError(f"judge {self.url!r}; expected a URL such as http://127.0.0.1:8000/v1")

    @property
    def name(self) -> str:
        """The model, without the address: it may be served elsewhere tomorrow."""
        return f"endpoint:{self.model}"

    def refuse(self, asked: Asked) -> None:
        """Raise where there is nothing to read in place of the video."""
        if asked.caption is None and asked.truth is None:
            raise ConfigError(
                f"{asked.place}: this judge sees no video; give the row a 'caption' (or an 'answer')"
            )

    def prompt(self, asked: Asked, answer: str) -> str:
        """The rubric, with the caption."""
        return judge_prompt(asked, answer, sees=False)

    def judge(self, asked: Asked, answer: str) -> Verdict:
        """The grade in the server's reply."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": self.prompt(asked, answer)},
            ],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        reply = self._reply(json.dumps(body).encode())
        score = read_score(reply)
        if score is None:
            raise UndecidedError("no score from 1 to 5 in the reply", reply)
        return Verdict(score=float(score), reply=reply)

    def _reply(self, body: bytes) -> str:
        url = f"{self.url.rstrip('/').removesuffix('/v1')}/v1/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            request = urllib.request.Request(url, body, headers)
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            told = f"the judge answered {error.code} {error.reason}"
            if error.code in HOPELESS:
                raise ConfigError(f"{url}: {told}; see the address, the model's name and the key") from error
            raise UndecidedError(told) from error
        except (http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise UndecidedError(f"no reply within {self.timeout_s:g} s") from error
            raise UndecidedError(f"not reached ({reason or type(error).__name__})") from error
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UndecidedError(
                "the reply is no chat completion", content[:500].decode("utf-8", "replace")
            ) from error
        return text if isinstance(text, str) else ""
