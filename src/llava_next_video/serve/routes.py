"""The routes: each reads a request, asks the desk, and writes its answer."""

from __future__ import annotations

import asyncio
import base64
from importlib import metadata

from fastapi import APIRouter, Request, Response

from llava_next_video.errors import PromptError
from llava_next_video.media import Clip
from llava_next_video.messages import Image, Video, user
from llava_next_video.serve import responses, shapes
from llava_next_video.serve.account import echo
from llava_next_video.serve.desk import Desk, salted
from llava_next_video.serve.door import Visit
from llava_next_video.serve.events import EventStream, begun, event
from llava_next_video.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    FramesRequest,
    LoadRequest,
    ResponsesRequest,
    TokenizeRequest,
)
from llava_next_video.serve.reading import (
    read_chat,
    read_completion,
    read_one,
    read_responses,
    read_turns,
    responses_messages,
)
from llava_next_video.serve.refusals import Refusal

Answer = Response | dict[str, object]

REFUSALS: dict[int | str, dict[str, object]] = {
    400: {"description": "What was asked cannot be done; the message says why and names the field."},
    401: {"description": "An API key is needed."},
    404: {"description": "No such model."},
    413: {"description": "The request is too large."},
    429: {"description": "The queue is full; Retry-After says when to come back."},
    503: {"description": "The server is stopping, or its engine is down."},
    504: {"description": "Not answered in time."},
}

STREAMS: dict[int | str, dict[str, object]] = {
    200: {
        "description": "The answer; with `stream` its pieces as server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}
TEXT: dict[int | str, dict[str, object]] = {200: {"description": "Figures.", "content": {"text/plain": {}}}}
EVENTS: dict[int | str, dict[str, object]] = {
    200: {"description": "Ready.", "content": {"text/event-stream": {}}}
}

routes = APIRouter(responses=REFUSALS)


def _of(request: Request) -> tuple[Desk, Visit]:
    return request.app.state.desk, request.scope["state"]["visit"]


@routes.post("/v1/chat/completions", response_model=None, responses=STREAMS)
async def chat_completions(asked: ChatRequest, request: Request) -> Answer:
    """Answer a conversation about clips, pictures, or nothing at all."""
    desk, visit = _of(request)
    pieces = await begun(desk.chat(visit, asked.messages, asked, read_chat(asked)))
    logprobs = bool(asked.logprobs)
    if not asked.stream:
        _refuse_stream_options(asked)
        return await shapes.chat_whole(pieces, visit.account, desk.tokens, logprobs=logprobs)
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return EventStream(shapes.chat_events(pieces, visit.account, desk.tokens, logprobs=logprobs, usage=usage))


@routes.post("/v1/completions", response_model=None, responses=STREAMS)
async def completions(asked: CompletionRequest, request: Request) -> Answer:
    """Go on with a text."""
    desk, visit = _of(request)
    desk.refuse_model(asked.model)
    if asked.media_io_kwargs is not None or asked.mm_processor_kwargs is not None:
        raise PromptError("completions take no media; ask /v1/chat/completions about them")
    text = desk.text(asked.prompt, read_completion(asked), visit.account, salted(visit, asked.cache_salt))
    visit.holds.push_async_callback(text.aclose)
    pieces = await begun(text)
    logprobs = asked.logprobs is not None
    if not asked.stream:
        _refuse_stream_options(asked)
        return await shapes.text_whole(pieces, visit.account, desk.tokens, logprobs=logprobs)
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return EventStream(shapes.text_events(pieces, visit.account, desk.tokens, logprobs=logprobs, usage=usage))


def _refuse_stream_options(asked: ChatRequest | CompletionRequest) -> None:
    if asked.stream_options is not None:
        raise Refusal(400, "stream_options needs stream to be true", "invalid_value", "stream_options")


@routes.post("/v1/responses", response_model=None, responses=STREAMS)
async def create_response(asked: ResponsesRequest, request: Request) -> Answer:
    """Answer a conversation in the words of the Responses API."""
    desk, visit = _of(request)
    messages = responses_messages(asked)
    pieces = await begun(desk.chat(visit, messages, asked, read_responses(asked)))
    if asked.stream:
        return EventStream(responses.events(pieces, visit.account, asked))
    return await responses.whole(pieces, visit.account, asked)


@routes.post("/v1/frames", response_model=None)
async def frames(asked: FramesRequest, request: Request) -> Answer:
    """The frames that the model would look at, as thumbnails with their times; costs no words."""
    desk, visit = _of(request)
    desk.refuse_model(asked.model)
    wanted = read_one(asked, desk.settings)
    salt = salted(visit, asked.cache_salt)
    async with desk.media.seen([wanted], salt, height=asked.height) as (seen,):
        medium = seen.medium
        times = medium.times_s if isinstance(medium, Clip) else (0.0,)
        shown = Video() if wanted.kind == "video" else Image()
        inputs = await desk.bridge.prepare([user("", [shown])], [medium], salt)
        return {
            "object": "list",
            **echo(medium),
            "uuid": wanted.name,
            "visual_tokens": inputs.visual_tokens,
            "data": [
                {
                    "object": "frame",
                    "index": number,
                    "time_s": round(time_s, 3),
                    "url": f"data:image/jpeg;base64,{base64.b64encode(small).decode()}",
                }
                for number, (time_s, small) in enumerate(zip(times, seen.small, strict=True))
            ],
        }


@routes.post("/tokenize", response_model=None)
async def tokenize(asked: TokenizeRequest, request: Request) -> Answer:
    """A text, or a conversation without media, as the ids that the model reads."""
    desk, _ = _of(request)
    desk.refuse_model(asked.model)
    if (asked.prompt is None) == (asked.messages is None):
        raise PromptError("give either prompt or messages")
    if asked.prompt is not None:
        ids = await desk.bridge.ids(asked.prompt, special=asked.add_special_tokens)
    else:
        turns = read_turns(asked.messages or [])
        if any(turn.media for turn in turns):
            raise PromptError("how many tokens a medium takes depends on it; ask /v1/frames")
        ids = (await desk.bridge.prepare(turns, [], b"")).ids
    return {"count": len(ids), "max_model_len": desk.bridge.context, "tokens": list(ids)}


@routes.get("/v1/models", response_model=None)
async def models(request: Request) -> Answer:
    """The one model that is served."""
    return {"object": "list", "data": [_model(_of(request)[0])]}


@routes.get("/v1/models/{name:path}", response_model=None)
async def model(name: str, request: Request) -> Answer:
    """The model of that name."""
    desk, _ = _of(request)
    desk.refuse_model(name)
    return _model(desk)


def _model(desk: Desk) -> dict[str, object]:
    return {
        "id": desk.settings.model_name,
        "object": "model",
        "created": desk.created,
        "owned_by": "llava-next-video",
        "max_model_len": desk.bridge.context,
        "default_frames": desk.settings.frames,
        "max_frames": desk.settings.max_frames,
    }


@routes.post("/load_model", response_model=None, response_class=Response, responses=EVENTS)
async def load_model(asked: LoadRequest, request: Request) -> Answer:
    """Says that the model is there: `transformers chat` asks before it talks."""
    _of(request)[0].refuse_model(asked.model)
    return Response(event({"status": "ready", "cached": True}), media_type="text/event-stream")


@routes.get("/health", response_model=None)
async def health(request: Request) -> Answer:
    """Whether the server lives: its engine runs."""
    desk, _ = _of(request)
    if not desk.ready:
        raise Refusal(503, "the engine is down; start the server again", "engine_down")
    return {"status": "ok"}


@routes.get("/ready", response_model=None)
async def ready(request: Request) -> Answer:
    """Whether new requests are taken: not while the server stops."""
    if request.app.state.door.closing:
        raise Refusal(503, "the server is stopping", "stopping")
    return await health(request)


@routes.get("/version", response_model=None)
async def version() -> Answer:
    """Of the package."""
    return {"version": metadata.version("llava-next-video")}


@routes.get("/metrics", response_model=None, response_class=Response, responses=TEXT)
async def metrics(request: Request) -> Answer:
    """Figures for Prometheus."""
    text = await asyncio.to_thread(_of(request)[0].metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
