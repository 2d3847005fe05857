"""Requests to turns, media and the choice of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from llava_next_video.engine import SamplingOptions
from llava_next_video.errors import PromptError, SamplingError
from llava_next_video.media import Sampling
from llava_next_video.messages import Image, Text, Turn, Video
from llava_next_video.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    Format,
    FramesRequest,
    ImagePart,
    Message,
    ResponsesRequest,
    Sampled,
    TextPart,
    UrlOf,
    VideoPart,
)
from llava_next_video.serve.refusals import Refusal, refusal_of_option
from llava_next_video.serve.settings import ServeSettings

DEFAULT_NEW_TOKENS = 256
OWN_NOTES = ("transformers_version", "do_sample")
# What `transformers chat` may set, in transformers' names.
GENERATION: dict[str, type[int] | type[float]] = {
    "max_new_tokens": int,
    "min_new_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "repetition_penalty": float,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A medium that a request names.

    Attributes:
        url: Where it is; None if only its name is given.
        name: What the client calls it, for the next time.
        sampling: Which moments to look at, if it is a clip.
        every_frame: Whether frames that the client has chosen itself are all looked at.
    """

    kind: Literal["video", "image"]
    url: str | None
    name: str | None
    sampling: Sampling
    every_frame: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the text of an answer must be: JSON of a schema, or a match of a pattern."""

    schema: dict[str, object] | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How an answer is chosen; `new_tokens` is None where the client leaves it to us."""

    options: SamplingOptions
    new_tokens: int | None
    answers: int = 1
    shape: Shape | None = None


def read_turns(messages: Sequence[Message]) -> tuple[Turn, ...]:
    """The conversation; it must end with the user.

    Raises:
        PromptError: It ends with somebody else.
    """
    turns = tuple(_turn(message) for message in messages)
    if turns[-1].role != "user":
        raise PromptError(f"the last message is the {turns[-1].role}'s; end with a user's message")
    return turns


def _turn(message: Message) -> Turn:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return Turn(role=role, parts=(Text(text=message.content),))
    return Turn(role=role, parts=tuple(map(_part, message.content)))


def _part(part: TextPart | ImagePart | VideoPart) -> Text | Image | Video:
    if isinstance(part, TextPart):
        return Text(text=part.text)
    return Image() if isinstance(part, ImagePart) else Video()


def read_media(
    messages: Sequence[Message], request: Sampled | FramesRequest, settings: ServeSettings
) -> tuple[Wanted, ...]:
    """The media of a conversation, in order.

    Raises:
        PromptError: More than the server takes, or one without URL and name.
        SamplingError: More frames than the server takes.
    """
    sampling, every_frame = read_sampling(request, settings)
    wanted = tuple(
        _wanted(part, place, sampling, every_frame)
        for number, message in enumerate(messages)
        if not isinstance(message.content, str)
        for place, part in ((f"messages.{number}", part) for part in message.content)
        if not isinstance(part, TextPart)
    )
    if len(wanted) > settings.max_media:
        raise PromptError(f"{len(wanted)} media in one request, and at most {settings.max_media} are taken")
    return wanted


def read_one(request: FramesRequest, settings: ServeSettings) -> Wanted:
    """The one medium of a request for frames.

    Raises:
        PromptError: None is named, or two are.
    """
    if request.video_url is not None and request.image_url is not None:
        raise PromptError("video_url and image_url are both given; ask for one medium at a time")
    sampling, every_frame = read_sampling(request, settings)
    part: ImagePart | VideoPart = VideoPart(type="video_url", video_url=request.video_url, uuid=request.uuid)
    if request.image_url is not None:
        part = ImagePart(type="image_url", image_url=request.image_url, uuid=request.uuid)
    return _wanted(part, "frames", sampling, every_frame)


def _wanted(part: ImagePart | VideoPart, place: str, sampling: Sampling, every_frame: bool) -> Wanted:
    given = part.video_url if isinstance(part, VideoPart) else part.image_url
    url = given.url if isinstance(given, UrlOf) else given
    if url is None and part.uuid is None:
        raise PromptError(f"{place}: a {part.type} names no medium; give its url, or the uuid of a known one")
    kind: Literal["video", "image"] = "video" if isinstance(part, VideoPart) else "image"
    return Wanted(kind=kind, url=url, name=part.uuid, sampling=sampling, every_frame=every_frame)


def read_sampling(request: Sampled | FramesRequest, settings: ServeSettings) -> tuple[Sampling, bool]:
    """Which moments of clips to look at, and whether that is left to us.

    Raises:
        SamplingError: Two wishes that differ, or more frames than the server takes.
    """
    video = request.media_io_kwargs.video if request.media_io_kwargs is not None else None
    wishes = [wish for wish in (video, request.mm_processor_kwargs) if wish is not None]
    counts = {wish.num_frames for wish in wishes} - {None}
    rates = {wish.fps for wish in wishes} - {None}
    if len(counts) > 1 or len(rates) > 1:
        raise SamplingError("media_io_kwargs and mm_processor_kwargs ask for different frames; keep one")
    count, rate = next(iter(counts), None), next(iter(rates), None)
    if count is not None and count > settings.max_frames:
        raise SamplingError(
            f"num_frames is {count}, and this server looks at {settings.max_frames} frames of a clip at most"
        )
    if rate is not None:
        return Sampling(how="fps", per_second=rate, frames=count or settings.max_frames), False
    return Sampling(frames=count or settings.frames), count is None


def read_chat(request: ChatRequest) -> Wish:
    """How the answers of a chat are chosen."""
    wanted = _first("max_completion_tokens", request.max_completion_tokens, request.max_tokens)
    if request.top_logprobs is not None and not request.logprobs:
        raise SamplingError("top_logprobs needs logprobs to be true")
    return _wish(
        request,
        new_tokens=wanted,
        length="max_tokens" if request.max_completion_tokens is None else "max_completion_tokens",
        answers=request.n,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        form=request.response_format,
        more=_generation_config(request.generation_config),
    )


def read_completion(request: CompletionRequest) -> Wish:
    """How the continuations of a text are chosen; 16 tokens by default, as the API has it."""
    wanted = 16 if request.max_tokens is None else request.max_tokens
    return _wish(
        request, new_tokens=wanted, length="max_tokens", answers=request.n, logprobs=request.logprobs
    )


def read_responses(request: ResponsesRequest) -> Wish:
    """How a response is chosen."""
    form = request.text.format if request.text is not None else None
    return _wish(request, new_tokens=request.max_output_tokens, length="max_output_tokens", form=form)


def responses_messages(request: ResponsesRequest) -> list[Message]:
    """The conversation of a Responses request, instructions first."""
    said = request.input
    messages = [Message(role="user", content=said)] if isinstance(said, str) else said
    if request.instructions is None:
        return messages
    return [Message(role="system", content=request.instructions), *messages]


def _wish(
    request: Sampled,
    *,
    new_tokens: int | None,
    length: str,
    answers: int | None = None,
    logprobs: int | None = None,
    form: Format | None = None,
    more: dict[str, object] | None = None,
) -> Wish:
    stop = request.stop
    given: dict[str, object] = {
        "min_new_tokens": request.min_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": None if request.top_k is None else max(request.top_k, 0),
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": request.seed,
        "stop": None if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        "stop_token_ids": None if request.stop_token_ids is None else tuple(request.stop_token_ids),
        "logit_bias": None if request.logit_bias is None else _biases(request.logit_bias),
        "logprobs": logprobs,
        "ignore_eos": request.ignore_eos,
    }
    chosen = {**(more or {}), **{name: value for name, value in given.items() if value is not None}}
    stated = cast("int | None", chosen.pop("max_new_tokens", None))
    limit = stated if new_tokens is None else new_tokens
    longest = max(DEFAULT_NEW_TOKENS, cast(int, chosen.get("min_new_tokens", 0))) if limit is None else limit
    names = {name: name for name in ("max_new_tokens", *chosen)}
    names |= {} if new_tokens is None else {"max_new_tokens": length}
    names |= {} if request.min_tokens is None else {"min_new_tokens": "min_tokens"}
    try:
        options = SamplingOptions(max_new_tokens=longest, **chosen)  # type: ignore[arg-type]
    except SamplingError as error:
        raise refusal_of_option(error, names) from error
    return Wish(options=options, new_tokens=limit, answers=answers or 1, shape=_shape(form, request))


def _first(name: str, *values: int | None) -> int | None:
    given = {value for value in values if value is not None}
    if len(given) > 1:
        raise Refusal(400, f"{name} and its old name differ; keep one", "invalid_value", name)
    return next(iter(given), None)


def _biases(given: dict[str, float]) -> dict[int, float]:
    if not all(token.isascii() and token.isdigit() for token in given):
        raise SamplingError("logit_bias takes token ids as its names")
    return {int(token): value for token, value in given.items()}


def _shape(form: Format | None, request: Sampled) -> Shape | None:
    shapes = []
    if form is not None and form.type == "json_object":
        shapes.append(Shape(schema={"type": "object"}))
    elif form is not None and form.type == "json_schema":
        schema = form.json_schema.schema_ if form.json_schema is not None else form.schema_
        if schema is None:
            raise SamplingError("a response format of type json_schema needs its schema")
        shapes.append(Shape(schema=schema))
    wanted = request.structured_outputs
    if wanted is not None and wanted.json_ is not None:
        shapes.append(Shape(schema=wanted.json_))
    if wanted is not None and wanted.regex is not None:
        shapes.append(Shape(pattern=wanted.regex))
    if len(shapes) > 1:
        raise SamplingError(f"the form of the answer is given {len(shapes)} times; keep one")
    return shapes[0] if shapes else None


def _generation_config(text: str | None) -> dict[str, object]:
    """The settings that `transformers chat` sends as text, in transformers' names."""
    if text is None:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SamplingError("generation_config is not the text of a JSON object") from error
    if not isinstance(given, dict):
        raise SamplingError("generation_config is not the text of a JSON object")
    known = {name: value for name, value in given.items() if value is not None and name not in OWN_NOTES}
    if unknown := [name for name in known if name not in GENERATION]:
        raise Refusal(
            400, f"generation_config: {unknown[0]} is not supported here", "unsupported", unknown[0]
        )
    settings: dict[str, object] = {name: _number(name, value) for name, value in known.items()}
    sampled = given.get("do_sample")
    if sampled is True:
        return {"temperature": 1.0, **settings}
    return settings if sampled is None else {**settings, "temperature": 0.0}


def _number(name: str, value: object) -> int | float:
    kind = GENERATION[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
        raise SamplingError(f"generation_config: {name} is {value!r}; expected a number")
    return kind(value)
