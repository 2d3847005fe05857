"""The requests that clients may send, field by field.

A field that is not honoured is refused by its name. A field that asks for nothing (null, an empty list, the
one value that changes nothing) is accepted, since clients write their whole form.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(max_length=256)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Url = str


class Strict(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if not _asks_for_nothing(value)}


def _asks_for_nothing(value: object) -> bool:
    return value is None or value == [] or value == {}


class UrlOf(Strict):
    """`{"url": ...}`; `detail` changes nothing, as every picture is seen in full."""

    url: Url
    detail: Literal["auto"] | None = None


class TextPart(Strict):
    """Words."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class ImagePart(Strict):
    """A picture; `uuid` names it for later, and once it is known the URL may be left out."""

    type: Literal["image_url", "input_image"]
    image_url: UrlOf | Url | None = None
    detail: Literal["auto"] | None = None
    uuid: Name | None = None


class VideoPart(Strict):
    """A clip; `uuid` as for a picture."""

    type: Literal["video_url", "input_video"]
    video_url: UrlOf | Url | None = None
    uuid: Name | None = None


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    type: Literal["message"] | None = None
    id: str | None = None
    status: Literal["completed"] | None = None


class VideoWishes(Strict):
    """How many frames of each clip, or how many a second."""

    num_frames: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0, le=1000)


class MediaWishes(Strict):
    """vLLM's `media_io_kwargs`."""

    video: VideoWishes | None = None


class ProcessorWishes(VideoWishes):
    """vLLM's `mm_processor_kwargs`."""

    do_sample_frames: Literal[True] | None = None


class JsonSchema(Strict):
    """A schema with its name."""

    name: Name | None = None
    description: str | None = None
    schema_: dict[str, object] = Field(alias="schema")
    strict: bool | None = None


class Format(Strict):
    """The form of the answer; the Responses API writes the schema beside the type."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    name: Name | None = None
    description: str | None = None
    schema_: dict[str, object] | None = Field(None, alias="schema")
    strict: bool | None = None


class Structured(Strict):
    """vLLM's `structured_outputs`."""

    json_: dict[str, object] | None = Field(None, alias="json")
    regex: str | None = Field(None, max_length=10_000)


class StreamOptions(Strict):
    """What a stream tells beside its pieces."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Sampled(Strict):
    """What every request for words may ask of their choice."""

    model: Name | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stop_token_ids: list[int] | None = Field(None, max_length=64)
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=1024)
    structured_outputs: Structured | None = None
    media_io_kwargs: MediaWishes | None = None
    mm_processor_kwargs: ProcessorWishes | None = None
    cache_salt: Name | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None


class ChatRequest(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = Field(None, ge=1, le=16)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: Format | None = None
    stream_options: StreamOptions | None = None
    generation_config: str | None = Field(None, description="What `transformers chat` sends.")
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto"] | None = None


class CompletionRequest(Sampled):
    """POST /v1/completions: text goes on; no media."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = None
    n: int | None = Field(None, ge=1, le=16)
    best_of: Literal[1] | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    stream_options: StreamOptions | None = None
    echo: Literal[False] | None = None


class TextForm(Strict):
    """The `text` of the Responses API."""

    format: Format | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesRequest(Sampled):
    """POST /v1/responses: nothing is stored, so every request brings its whole conversation."""

    input: str | list[Message]
    instructions: str | None = None
    max_output_tokens: int | None = None
    text: TextForm | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto"] | None = None


class FramesRequest(Strict):
    """POST /v1/frames: the moments of a clip that the model would see."""

    model: Name | None = None
    video_url: UrlOf | Url | None = None
    image_url: UrlOf | Url | None = None
    uuid: Name | None = None
    height: int = Field(160, ge=16, le=720, description="Pixels of a thumbnail's height, at most.")
    media_io_kwargs: MediaWishes | None = None
    mm_processor_kwargs: ProcessorWishes | None = None
    cache_salt: Name | None = None


class TokenizeRequest(Strict):
    """POST /tokenize: a prompt, or a conversation without media, as ids."""

    model: Name | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: Literal[True] | None = None
    return_token_strs: Literal[False] | None = None


class LoadRequest(Strict):
    """POST /load_model, which `transformers chat` asks first."""

    model: Name
