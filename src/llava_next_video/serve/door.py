"""Everything that happens to a request before and around its route.

A name for the log, the key, the queue, the size of the body, the deadline, the client that leaves, and the
line in the log. Written against ASGI itself: the body is read here and counted while it comes, and the route
runs as a task that is cancelled when nobody waits for its answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llava_next_video.serve.account import Account
from llava_next_video.serve.events import event
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.refusals import Refusal, refusal_of
from llava_next_video.serve.settings import ServeSettings

OPEN = frozenset({"/", "/page.css", "/page.js", "/health", "/ready"})
"""What needs no key: a probe has none, and a browser can send one only once the page is there."""

NAME = re.compile(r"[\w.-]{1,64}\Z", re.ASCII)

access = logging.getLogger("llava_next_video.access")
logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request as the routes know it.

    Attributes:
        tenant: Salt of everything that is kept for this client.
        holds: What is let go when the request is over, whatever ended it.
    """

    id: str
    tenant: bytes
    account: Account
    holds: AsyncExitStack


@dataclass(slots=True)
class _Answering:
    """What was told of an answer so far."""

    send: Send
    id: str
    status: int = 0
    kind: str = ""
    over: bool = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(b"x-request-id", self.id.encode()), *message.get("headers", [])]
            self.kind = dict(headers).get(b"content-type", b"").decode("latin-1")
            message = {**message, "headers": headers}
        else:
            self.over = not message.get("more_body", False)
        await self.send(message)

    async def refuse(self, refusal: Refusal) -> None:
        """Tell an error: as the answer, or where one has begun as the last event of its stream."""
        if self.over:
            return
        if self.status:
            body = event(refusal.body).encode() if self.kind.startswith("text/event-stream") else b""
            await self.send({"type": "http.response.body", "body": body})
            return
        headers = {"content-type": "application/json", **refusal.headers}
        told = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": told})
        await self.send({"type": "http.response.body", "body": json.dumps(refusal.body).encode()})


class _Gone(Exception):
    """The client has left."""


@dataclass(slots=True)
class Door:
    """An ASGI application around the routes.

    Attributes:
        closing: Set when the server stops: requests under way may finish, new ones are sent elsewhere.
    """

    app: ASGIApp
    settings: ServeSettings
    metrics: Metrics
    closing: bool = False
    under_way: int = 0
    body_bytes: int = 0
    _usual_s: float = 1.0
    _cut_short: bool = False
    _deadlines: set[asyncio.Timeout] = field(default_factory=set)

    def cut_short(self) -> None:
        """End the requests under way, each with an error; called in the loop."""
        self.closing = self._cut_short = True
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        headers = dict(scope["headers"])
        named = headers.get(b"x-request-id", b"").decode("latin-1")
        name = named if NAME.match(named) else uuid.uuid4().hex
        answering = _Answering(send, name)
        account = Account(model=self.settings.model_name)
        reason: str | None = None
        try:
            async with AsyncExitStack() as holds:
                tenant = self._tenant(scope["path"], headers)
                visit = Visit(id=name, tenant=tenant, account=account, holds=holds)
                scope.setdefault("state", {})["visit"] = visit
                await self._admitted(scope, receive, answering)
        except _Gone:
            reason = "the client has left"
        except Exception as error:  # the outermost wall of one request
            refusal = refusal_of(error)
            reason = refusal.message
            if refusal.status == 500:
                logger.exception("request %s failed", name)
            await answering.refuse(refusal)
        finally:
            self._log(scope, answering, account, time.monotonic() - started, reason)

    def _tenant(self, path: str, headers: dict[bytes, bytes]) -> bytes:
        tenant = self.settings.tenant(headers.get(b"authorization", b"").decode("latin-1"))
        if tenant is None and path not in OPEN:
            raise Refusal(401, "an API key is needed: Authorization: Bearer KEY", "invalid_api_key")
        return tenant or b""

    async def _admitted(self, scope: Scope, receive: Receive, send: _Answering) -> None:
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.closing:
            raise Refusal(503, "the server is stopping; ask another one", "stopping", retry_after_s=5)
        if self.under_way >= self.settings.max_requests:
            wait_s = min(60, 1 + round(self._usual_s * self.under_way / 64))
            raise Refusal(
                429,
                f"{self.under_way} requests are under way, and this server takes no more; come back later",
                "queue_full",
                retry_after_s=wait_s,
            )
        began = time.monotonic()
        held = 0

        def book(size: int) -> None:
            nonlocal held
            held += size
            self.body_bytes += size
            if self.body_bytes > self.settings.bodies_bytes:
                raise Refusal(429, "the requests under way fill the memory for them", "queue_full", None, 5)

        self.under_way += 1
        try:
            async with asyncio.timeout(self.settings.deadline_s) as deadline:
                self._deadlines.add(deadline)
                body = await self._body(scope, receive, book)
                await _until_gone(partial(_answer, self.app, scope, send), body, receive, send)
            self._usual_s += 0.1 * (time.monotonic() - began - self._usual_s)
        except TimeoutError:
            if self._cut_short:
                message = "the server stopped before the answer was complete; ask another one"
                raise Refusal(503, message, "stopping", retry_after_s=5) from None
            message = f"not answered within {self.settings.deadline_s:g} s; ask for less, or later"
            raise Refusal(504, message, "deadline_exceeded") from None
        finally:
            self._deadlines.discard(deadline)
            self.under_way -= 1
            self.body_bytes -= held

    async def _body(self, scope: Scope, receive: Receive, book: Callable[[int], None]) -> bytes:
        """The whole body, counted while it comes."""
        most = self.settings.max_body_bytes
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        size = int(stated) if stated.isdigit() else 0
        body = bytearray()
        more = True
        while more:
            chunk = b""
            if size <= most:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                chunk, more = message.get("body", b""), message.get("more_body", False)
            body += chunk
            if max(size, len(body)) > most:
                raise Refusal(413, f"more than {most} bytes in one request", "request_too_large")
            book(len(chunk))
        return bytes(body)

    def _log(
        self, scope: Scope, answering: _Answering, account: Account, seconds: float, reason: str | None
    ) -> None:
        route = getattr(scope.get("route"), "path", "none")
        status = answering.status or 499
        self.metrics.http.labels(route, str(status)).inc()
        line = {
            "request": answering.id,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 4),
            **({"reason": reason} if reason else {}),
            **(account.figures if account.prompt_tokens else {}),
        }
        access.info(json.dumps(line, ensure_ascii=False))


async def _answer(app: ASGIApp, scope: Scope, send: Send, receive: Receive) -> None:
    await app(scope, receive, send)


async def _until_gone(
    route: Callable[[Receive], Awaitable[None]], body: bytes, receive: Receive, answering: _Answering
) -> None:
    """Run a route on a body that was read; end it when the client leaves."""
    gone = asyncio.ensure_future(_disconnect(receive))
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await asyncio.shield(gone)

    work = asyncio.ensure_future(route(replay))
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        # A server also speaks of a disconnect once the answer is complete.
        if not work.done() and not answering.over:
            raise _Gone
        await work
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnect(receive: Receive) -> Message:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return message
