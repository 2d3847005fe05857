"""The chat API, asked by the client that everybody has."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest
from PIL import Image
from tests.serve.conftest import Running, about, data_url, write_film

from llava_next_video import VideoAssistant
from llava_next_video.media import Sampling, read_clip

MODEL = "llava-next-video"


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def assistant(load: Callable[[], VideoAssistant]) -> VideoAssistant:
    return load()


def test_a_question_about_a_clip_is_answered_as_the_assistant_answers_it(
    client: openai.OpenAI, assistant: VideoAssistant, clip: Path
) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=about(data_url(clip)), max_tokens=12)
    expected = assistant.ask(clip, "What is in the video?", max_new_tokens=12)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    # Eight frames of 64 x 64 pixels, patches of 8, pooled 2 x 2: 8 x 4 x 4 tokens.
    assert answer.usage.prompt_tokens_details.visual_tokens == 128
    (seen,) = answer.media
    assert seen["frame_indices"] == list(read_clip(clip, Sampling(frames=8)).indices)


def test_a_stream_has_the_same_words_a_role_a_reason_and_the_usage(client: openai.OpenAI, clip: Path) -> None:
    asked = {"model": MODEL, "messages": about(data_url(clip), "Describe it."), "max_tokens": 20}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *said, last = chunks
    assert said[0].choices[0].delta.role == "assistant"
    assert len(said) > 2
    assert "".join(one.choices[0].delta.content or "" for one in said) == whole.choices[0].message.content
    assert [one.choices[0].finish_reason for one in said][-1] == whole.choices[0].finish_reason
    assert (last.choices, last.usage.completion_tokens) == ([], whole.usage.completion_tokens)
    assert len({one.id for one in chunks}) == 1


def test_the_second_question_about_a_clip_finds_the_prompt_cached(client: openai.OpenAI, shown: Path) -> None:
    url = data_url(write_film(shown, 77))
    first = client.chat.completions.create(model=MODEL, messages=about(url, "How many?"), max_tokens=2)
    second = client.chat.completions.create(model=MODEL, messages=about(url, "Which shape?"), max_tokens=2)
    # Of the words before the clip and its 128 tokens, whole pages of 16.
    assert first.usage.prompt_tokens_details.cached_tokens < 16
    assert second.usage.prompt_tokens_details.cached_tokens >= 64


@pytest.mark.parametrize(
    ("more", "times_s"),
    [
        ({"media_io_kwargs": {"video": {"num_frames": 3}}}, 3),
        ({"mm_processor_kwargs": {"num_frames": 5}}, 5),
        ({"mm_processor_kwargs": {"fps": 2.0, "do_sample_frames": True}}, None),
    ],
)
def test_a_request_chooses_its_frames(
    client: openai.OpenAI, clip: Path, more: dict[str, object], times_s: int | None
) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=about(data_url(clip)), max_tokens=1, extra_body=more
    )
    sampling = Sampling(frames=times_s) if times_s else Sampling(how="fps", per_second=2.0, frames=64)
    expected = read_clip(clip, sampling)
    assert answer.media[0]["frame_indices"] == list(expected.indices)
    assert answer.media[0]["frame_times_s"] == pytest.approx(expected.times_s, abs=1e-3)


def jpeg(shade: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (shade, 80, 200)).save(file, format="JPEG")
    return base64.b64encode(file.getvalue()).decode()


def test_frames_that_the_client_has_chosen_are_all_looked_at(client: openai.OpenAI) -> None:
    url = "data:video/jpeg;base64," + ",".join(jpeg(20 * number) for number in range(11))
    answer = client.chat.completions.create(model=MODEL, messages=about(url), max_tokens=1)
    assert answer.media[0]["frame_indices"] == list(range(11))
    with pytest.raises(openai.BadRequestError, match="65 frames, and this server looks at 64 at most"):
        client.chat.completions.create(
            model=MODEL, messages=about("data:video/jpeg;base64," + ",".join([jpeg(1)] * 65))
        )


def test_clips_and_pictures_stand_in_one_prompt(client: openai.OpenAI, clip: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{jpeg(9)}"}}
    video = {"type": "video_url", "video_url": {"url": clip.as_uri()}}
    content = [video, picture, video, {"type": "text", "text": "Which?"}]
    answer = client.chat.completions.create(
        model=MODEL,
        max_tokens=1,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": content},
            {"role": "assistant", "content": "This one."},
            {"role": "user", "content": "Why?"},
        ],
    )
    assert [seen["kind"] for seen in answer.media] == ["video", "image", "video"]


def test_several_answers_a_seed_stop_strings_and_logprobs_are_honoured(
    client: openai.OpenAI, clip: Path
) -> None:
    asked = {"model": MODEL, "messages": about(data_url(clip), "Describe it."), "max_tokens": 12}
    # The checkpoint is sure of what it sees; of what is not there it can say anything.
    drawn = {
        **asked,
        "messages": about(data_url(clip), "Where is the red star at the end?"),
        "temperature": 2.0,
        "seed": 5,
        "n": 3,
    }
    first, again = (client.chat.completions.create(**drawn) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    second = client.chat.completions.create(**{**drawn, "seed": 6, "n": 1})
    assert second.choices[0].message.content == texts[1]

    greedy = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    text = greedy.choices[0].message.content
    tokens = greedy.choices[0].logprobs.content
    assert "".join(token.token for token in tokens).strip() == text
    assert all(token.top_logprobs[0].token == token.token for token in tokens)
    assert all(token.logprob == pytest.approx(token.top_logprobs[0].logprob) for token in tokens)

    word = text.split()[2]
    cut = client.chat.completions.create(**asked, stop=[word])
    assert cut.choices[0].message.content == text[: text.index(word)].rstrip()
    assert cut.choices[0].finish_reason == "stop"


def test_a_clip_is_known_by_its_name_once_it_was_sent(client: openai.OpenAI, clip: Path) -> None:
    def ask(messages: list[dict[str, object]]) -> str | None:
        answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=8)
        return answer.choices[0].message.content

    named = [{"role": "user", "content": [{"type": "video_url", "video_url": None, "uuid": "my clip"}]}]
    with pytest.raises(openai.BadRequestError) as refused:
        ask(named)
    assert refused.value.code == "media_unknown"
    sent = ask(about(data_url(clip), "Describe it.", uuid="my clip"))
    named[0]["content"].append({"type": "text", "text": "Describe it."})
    assert ask(named) == sent


@pytest.mark.parametrize(
    ("path", "more", "named"),
    [
        ("chat/completions", {"temperature": -1}, "temperature"),
        ("chat/completions", {"top_p": 0}, "top_p"),
        ("chat/completions", {"max_tokens": 0}, "max_tokens"),
        ("chat/completions", {"max_completion_tokens": 0}, "max_completion_tokens"),
        ("chat/completions", {"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ("chat/completions", {"generation_config": '{"max_new_tokens": 0}'}, "max_new_tokens"),
        ("completions", {"max_tokens": 0}, "max_tokens"),
        ("responses", {"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_a_value_outside_its_range_is_named_as_the_request_names_it(
    http: httpx.Client, path: str, more: dict[str, object], named: str
) -> None:
    asked = {
        "chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
        "completions": {"prompt": "Hello"},
        "responses": {"input": "Hello"},
    }[path]
    answer = http.post(f"/v1/{path}", json={**asked, **more})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", named), error
    assert error["message"].startswith(f"{named} is ")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"mm_processor_kwargs": {"max_pixels": 3}}, "mm_processor_kwargs.max_pixels"),
        ({"messages": [{"role": "user", "content": "?", "name": "Ann"}]}, "messages.0.name"),
        ({"messages": [{"role": "tool", "content": "?"}]}, "messages.0.role"),
        ({"max_tokens": "five"}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_field_that_is_not_honoured_is_named(
    http: httpx.Client, more: dict[str, object], named: str
) -> None:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, **more}
    answer = http.post("/v1/chat/completions", json=asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, named), error
    assert named in error["message"]


def test_fields_that_ask_for_nothing_are_accepted(http: httpx.Client) -> None:
    nothing = {"tools": None, "audio": None, "functions": [], "store": False, "service_tier": "auto"}
    nothing |= {"user": "ann", "metadata": {"a": "b"}, "modalities": ["text"], "n": 1, "temperature": 0}
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, **nothing}
    assert http.post("/v1/chat/completions", json=asked).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"model": "gpt"}, 404, "model_not_found"),
        ({"max_tokens": 5000}, 400, "context_length_exceeded"),
        ({"max_tokens": 0}, 400, "invalid_value"),
        ({"temperature": -1}, 400, "invalid_value"),
        ({"messages": about("data:video/mp4;base64,AAAA")}, 400, "media_unreadable"),
        ({"messages": about("clip.mp4")}, 400, "media_unreadable"),
        ({"messages": about("data:video/mp4;base64,????")}, 400, "media_unreadable"),
        ({"media_io_kwargs": {"video": {"num_frames": 65}}}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": "<video> what?"}]}, 400, "invalid_prompt"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, 400, "invalid_prompt"),
        ({"messages": [{"role": "user", "content": "a" * 200_000}]}, 400, "context_length_exceeded"),
        ({"stop_token_ids": [99_999]}, 400, "invalid_value"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_envelope(
    http: httpx.Client, asked: dict[str, object], status: int, code: str
) -> None:
    base = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, "stream": True}
    answer = http.post("/v1/chat/completions", json={**base, **asked})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_an_answer_in_json_follows_its_schema(client: openai.OpenAI, clip: Path) -> None:
    pytest.importorskip("llguidance", reason="the structured extra is not installed")
    schema = {
        "type": "object",
        "properties": {"shape": {"enum": ["square", "circle"]}, "count": {"type": "integer", "maximum": 9}},
        "required": ["shape", "count"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=about(data_url(clip), "What is it?"),
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}},
    )
    told = json.loads(answer.choices[0].message.content)
    assert told["shape"] in ("square", "circle")
    assert told["count"] <= 9
    matched = client.chat.completions.create(
        model=MODEL,
        messages=about(data_url(clip), "What is it?"),
        extra_body={"structured_outputs": {"regex": "(yes|no), [0-9]{2}"}},
    )
    assert matched.choices[0].message.content in {f"{a}, {n:02}" for a in ("yes", "no") for n in range(100)}
