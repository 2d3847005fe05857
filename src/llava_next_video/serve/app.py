"""The ASGI application: page, routes, and the door around them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import metadata, resources

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.serve.desk import Desk
from llava_next_video.serve.door import Door
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.refusals import Refusal, refusal_of
from llava_next_video.serve.routes import routes
from llava_next_video.serve.settings import ServeSettings

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
# Nothing from elsewhere; what the user drops is shown from memory.
GUARD = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def build_app(assistant: VideoAssistant, settings: ServeSettings) -> tuple[ASGIApp, Door]:
    """The application that serves a loaded assistant, and the door that closes it.

    From its start-up on the application owns the assistant's network.
    """
    metrics = Metrics(settings.model_name)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.desk = desk = Desk(assistant, settings, metrics)
        try:
            await desk.media.warm_up()
            yield
        finally:
            desk.close()

    app = FastAPI(
        title="LLaVA-NeXT-Video",
        version=metadata.version("llava-next-video"),
        description="Ask questions about videos, in OpenAI's words.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(routes)
    for path, (name, kind) in FILES.items():
        app.add_api_route(path, _file(name, kind), include_in_schema=False)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for error in (Refusal, LlavaNextVideoError, Exception):
        app.add_exception_handler(error, _refused)
    door = Door(app, settings, metrics)
    app.state.door = door
    if not settings.origins:
        return door, door
    outside = CORSMiddleware(
        door,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
        expose_headers=["X-Request-Id", "Retry-After"],
    )
    return outside, door


def _file(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = (resources.files("llava_next_video.serve") / "page" / name).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=kind, headers=GUARD)

    return send


async def _refused(_: Request, error: Exception) -> Response:
    refusal = refusal_of(error)
    return JSONResponse(refusal.body, refusal.status, refusal.headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _refused(request, Refusal(404, f"nothing at {request.url.path}; see /docs", "not_found"))
    answer = await _refused(request, Refusal(error.status_code, str(error.detail), "invalid_request"))
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a request, with the name of its field."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(step) for step in first["loc"][1:]]
    field = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return await _refused(
            request,
            Refusal(400, f"{field} is not honoured by this server; leave it out", "unsupported", field),
        )
    if first["type"] == "json_invalid":
        return await _refused(request, Refusal(400, "the body is no JSON", "invalid_json"))
    named = f"{field}: " if field else ""
    return await _refused(request, Refusal(400, f"{named}{first['msg']}", "invalid_value", field))
