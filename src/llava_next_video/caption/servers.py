"""Running servers as the model: ours, vLLM, SGLang, or whatever speaks OpenAI's chat API."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from llava_next_video.caption.cells import Cell, Missing
from llava_next_video.caption.items import Item
from llava_next_video.caption.outcome import DescriberGoneError, Model, Said, Seen, Sight, Tell
from llava_next_video.caption.seeing import see_frames
from llava_next_video.caption.wire import BusyError, RefusedError, chat_url, post, served_model
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.record import Slice
from llava_next_video.errors import LlavaNextVideoError, MediaError
from llava_next_video.media import Clip, Sampling, fetch
from llava_next_video.media.thumbnail import thumbnails

Send = Literal["video", "frames", "images"]

LONGEST_REST_S = 60.0
FRAME_HEIGHT = 448


@dataclass(slots=True, kw_only=True)
class _Server:
    url: str
    under_way: int = 0
    rests_until_s: float = 0.0
    rest_s: float = 1.0


class Servers:
    """Several servers with one model; each request goes to the one with the fewest under way.

    A server that is busy or gone rests for a while, longer each time, and its requests go elsewhere: that is
    no video's fault, and no video is blamed. When none has answered for `patience_s`, the run stops.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        model: str,
        send: Send,
        sampling: Sampling,
        options: Mapping[str, object],
        at_once: int = 32,
        look: bool = False,
        key: str | None = None,
        timeout_s: float = 600.0,
        patience_s: float = 900.0,
    ) -> None:
        """Nothing is asked yet.

        Args:
            urls: Where they are: `http://host:8000` or `http://host:8000/v1`.
            model: What they call it.
            send: `video`: the file as it is, decoded by the server; `frames`: the sampled frames as one
                `data:video/jpeg`; `images`: the sampled frames as pictures, which every server knows.
            sampling: Which frames; a server that decodes is told how many.
            options: `max_new_tokens`, `temperature`, `seed`.
            at_once: Requests under way, over all servers.
            look: Draw what near duplicates are found by (not for `video`, which is not decoded here).
            key: Bearer token.
            timeout_s: Seconds an answer may take.
            patience_s: Seconds without any answer until the run stops.
        """
        self.at_once = at_once
        self.model = model
        self._send_as = send
        self._sampling = sampling
        self._options = {**options, "max_tokens": options["max_new_tokens"]}
        self._look = look
        self._key = key
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._servers = [_Server(url=chat_url(url)) for url in urls]
        self._lock = threading.Lock()
        self._heard_s = time.monotonic()
        self._closed = threading.Event()
        self._hands = ThreadPoolExecutor(at_once, thread_name_prefix="ask")

    def see(self, item: Item, decoder: Decoder) -> Seen:
        """The file, or its frames as JPEG."""
        if self._send_as == "video":
            content = _bytes_of(item)
            sight = Sight(
                sha256=hashlib.sha256(content).hexdigest(),
                prompt=item.prompt,
                duration_s=item.seconds,
                look=None,
            )
            part = {"type": "video_url", "video_url": {"url": _data_url("video/mp4", [content])}}
            return Seen(sight=sight, times_s=(), bytes=2 * len(content), content=[part])
        seen = see_frames(item, decoder, self._sampling, look=self._look)
        assert isinstance(seen.content, Clip)
        pictures = thumbnails(seen.content, height=FRAME_HEIGHT)
        if self._send_as == "frames":
            parts = [{"type": "video_url", "video_url": {"url": _data_url("video/jpeg", pictures)}}]
        else:
            urls = [_data_url("image/jpeg", [picture]) for picture in pictures]
            parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        size = 2 * sum(map(len, pictures))
        return Seen(sight=seen.sight, times_s=seen.times_s, bytes=size, content=parts)

    def ask(self, item: Item, seen: Seen, tell: Tell) -> None:
        """Hand the request to a thread that will carry it to a server."""
        body: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "user", "content": [*_parts(seen), {"type": "text", "text": item.prompt}]},
            ],
        }
        for name in ("max_tokens", "temperature", "seed"):
            if self._options.get(name) is not None:
                body[name] = self._options[name]
        if self._send_as == "video":
            wish = (
                {"fps": self._sampling.per_second}
                if self._sampling.how == "fps"
                else {"num_frames": self._sampling.frames}
            )
            body["media_io_kwargs"] = {"video": wish}
        try:
            self._hands.submit(partial(self._tell, json.dumps(body).encode(), tell))
        except RuntimeError as error:
            raise DescriberGoneError("the captioner was closed") from error

    def close(self) -> None:
        """Drop what is under way."""
        self._closed.set()
        self._hands.shutdown(wait=False, cancel_futures=True)

    def _tell(self, body: bytes, tell: Tell) -> None:
        try:
            tell(self._answer(body))
        except LlavaNextVideoError as error:
            tell(error)
        except Exception as error:  # The outermost wall: an answer of a shape that nobody expected.
            tell(RefusedError(f"the server's answer cannot be read ({type(error).__name__}: {error})"))

    def _answer(self, body: bytes) -> Said:
        asked_s = time.monotonic()
        while True:
            server = self._pick()
            sent_s = time.monotonic()
            try:
                answer = post(server.url, body, self._key, self._timeout_s)
            except BusyError as busy:
                self._rest(server, busy)
                continue
            finally:
                with self._lock:
                    server.under_way -= 1
            with self._lock:
                self._heard_s, server.rest_s = time.monotonic(), 1.0
            return _said(
                answer, wait_ms=1000 * (sent_s - asked_s), generate_ms=1000 * (time.monotonic() - sent_s)
            )

    def _pick(self) -> _Server:
        """The server with the fewest requests; waits while all rest."""
        while not self._closed.is_set():
            with self._lock:
                now = time.monotonic()
                fit = [server for server in self._servers if server.rests_until_s <= now]
                if fit:
                    chosen = min(fit, key=lambda server: server.under_way)
                    chosen.under_way += 1
                    return chosen
                wait_s = min(server.rests_until_s for server in self._servers) - now
            self._closed.wait(min(wait_s, 1.0))
        raise DescriberGoneError("the captioner was closed")

    def _rest(self, server: _Server, busy: BusyError) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._heard_s > self._patience_s:
                raise DescriberGoneError(
                    f"{server.url}: {busy}; no server has answered for {self._patience_s:g} s. What was "
                    "finished is safe: start the servers and run again"
                )
            if server.rests_until_s <= now:  # the first to find out
                server.rests_until_s = now + (server.rest_s if busy.wait_s is None else busy.wait_s)
                server.rest_s = min(2 * server.rest_s, LONGEST_REST_S)


def server_model(
    urls: Sequence[str],
    model: str | None,
    prompt: str,
    sampling: Sampling,
    options: Mapping[str, object],
    *,
    send: Send | None,
    at_once: int,
    look: bool,
    key: str | None,
) -> Model:
    """Servers as a describer; what is None of `model` and `send` is what the first server has.

    That is its first model, and `frames` if it is a server of ours, which then sees what the model here would
    see; else `images`.

    Raises:
        DescriberGoneError: One of them is None, and the first server does not say what it has.
    """
    if model is None or send is None:
        served = served_model(urls[0], key)
        model, send = model or served.name, send or ("frames" if served.ours else "images")
    name = model
    identity = {
        "server_model": name,
        "send": send,
        "prompt": prompt,
        "sampling": dataclasses.asdict(sampling),
        "options": dict(options),
    }

    def load() -> Servers:
        return Servers(
            urls,
            model=name,
            send=send,
            sampling=sampling,
            options=options,
            at_once=at_once,
            look=look,
            key=key,
        )

    return Model(name=name, identity=identity, load=load)


def _said(answer: Mapping[str, Any], *, wait_ms: float, generate_ms: float) -> Said:
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    return Said(
        caption=str(choice["message"]["content"] or "").strip(),
        finish_reason="length" if choice["finish_reason"] == "length" else "stop",
        prompt_tokens=int(usage.get("prompt_tokens", 0)),
        visual_tokens=0,
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens", 0)),
        wait_ms=round(wait_ms, 1),
        generate_ms=round(generate_ms, 1),
    )


def _parts(seen: Seen) -> list[object]:
    assert isinstance(seen.content, list)
    return seen.content


def _data_url(kind: str, contents: Sequence[bytes]) -> str:
    return f"data:{kind};base64," + ",".join(base64.b64encode(content).decode() for content in contents)


def _bytes_of(item: Item) -> bytes:
    """The file of a video, wherever it is."""
    if isinstance(item.source, Slice | Cell | Missing):
        return item.source.read()
    if "://" in item.source or item.source.startswith("data:"):
        return fetch(item.source)
    try:
        return Path(item.source).read_bytes()
    except OSError as error:
        raise MediaError(f"{item.source}: {error.strerror or error}") from error
