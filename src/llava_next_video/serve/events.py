"""Server-sent events: answers that are told while they are written."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llava_next_video.serve.refusals import refusal_of

DONE = "data: [DONE]\n\n"

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def event(data: Mapping[str, object], name: str | None = None) -> str:
    """One event of a stream.

    >>> event({"a": 1}, "thing")
    'event: thing\\ndata: {"a": 1}\\n\\n'
    """
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


class EventStream(Response):
    """Tells events as they come; whatever ends the telling also ends whoever makes them.

    An error on the way is the last event: the status of the answer was told long ago.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                async for one in events:
                    await send({"type": "http.response.body", "body": one.encode(), "more_body": True})
            except Exception as error:  # the outermost wall of one request
                refusal = refusal_of(error)
                if refusal.status >= 500:
                    logger.exception("a stream broke off")
                await send(
                    {"type": "http.response.body", "body": event(refusal.body).encode(), "more_body": True}
                )
        await send({"type": "http.response.body", "body": b""})


async def begun(pieces: AsyncGenerator[Item]) -> AsyncGenerator[Item]:
    """The same pieces, once the first is there: until then an error still has a status of its own."""
    first = await anext(pieces)

    async def after() -> AsyncGenerator[Item]:
        yield first
        async for piece in pieces:
            yield piece

    return after()
