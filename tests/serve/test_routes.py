"""Completions, responses, frames, tokens, models, health and figures."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from tests.serve.conftest import Running, about, data_url

from llava_next_video.media import Sampling, read_clip

MODEL = "llava-next-video"


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_text_is_continued_for_each_prompt_and_sample(client: openai.OpenAI) -> None:
    asked = {"model": MODEL, "prompt": ["USER: what", "USER: which"], "max_tokens": 4, "logprobs": 1}
    asked["extra_body"] = {"ignore_eos": True}
    answer = client.completions.create(**asked, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == answer.choices[1].text
    single = client.completions.create(**{**asked, "prompt": "USER: which"})
    assert single.choices[0].text == answer.choices[2].text
    told = single.choices[0].logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == 4
    chunks = list(client.completions.create(**{**asked, "prompt": "USER: which"}, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == single.choices[0].text


def test_a_prompt_may_be_given_as_ids(client: openai.OpenAI, http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"prompt": "USER: which"}).json()["tokens"]
    texts = [
        client.completions.create(model=MODEL, prompt=prompt, max_tokens=5).choices[0].text
        for prompt in ("USER: which", ids)
    ]
    assert texts[0] == texts[1]


def test_a_conversation_is_tokenized_as_the_chat_counts_it(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "What is the colour?"}]
    told = http.post("/tokenize", json={"messages": messages}).json()
    asked = {"messages": messages, "max_tokens": 1}
    usage = http.post("/v1/chat/completions", json=asked).json()["usage"]
    assert told["count"] == len(told["tokens"]) == usage["prompt_tokens"]
    assert told["max_model_len"] == 2048


def test_the_responses_api_answers_about_a_clip(client: openai.OpenAI, clip: Path) -> None:
    parts = [
        {"type": "input_video", "video_url": data_url(clip)},
        {"type": "input_text", "text": "Describe it."},
    ]
    asked = {"model": MODEL, "input": [{"role": "user", "content": parts}], "max_output_tokens": 10}
    whole = client.responses.create(**asked)
    chat = client.chat.completions.create(
        model=MODEL, messages=about(data_url(clip), "Describe it."), max_tokens=10
    )
    assert whole.output_text == chat.choices[0].message.content
    assert whole.usage.input_tokens == chat.usage.prompt_tokens
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        last = stream.get_final_response()
    assert last.output_text == whole.output_text
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert kinds.count("response.output_text.delta") > 1


def test_frames_are_those_that_the_model_would_see(http: httpx.Client, clip: Path) -> None:
    asked = {"video_url": {"url": data_url(clip)}, "height": 40}
    told = http.post("/v1/frames", json={**asked, "media_io_kwargs": {"video": {"num_frames": 4}}}).json()
    expected = read_clip(clip, Sampling(frames=4))
    assert [frame["time_s"] for frame in told["data"]] == pytest.approx(expected.times_s, abs=1e-3)
    assert told["frame_indices"] == list(expected.indices)
    # Four frames of 64 x 64 pixels, patches of 8, pooled 2 x 2.
    assert told["visual_tokens"] == 64
    head, _, data = told["data"][0]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).height == 40


def test_a_picture_has_one_frame(http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    Image.new("RGB", (60, 30), (0, 200, 0)).save(path)
    told = http.post("/v1/frames", json={"image_url": data_url(path, "image/png")}).json()
    assert (told["kind"], told["size"], len(told["data"])) == ("image", {"height": 30, "width": 60}, 1)
    for asked in ({}, {"image_url": "data:,", "video_url": "data:,"}, {"uuid": "never seen"}):
        assert http.post("/v1/frames", json=asked).status_code == 400


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).max_model_len == 2048
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_probes_version_and_description_answer(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").status_code == 200
    assert re.match(r"\d+\.\d+", http.get("/version").json()["version"])
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/frames", "/tokenize", "/metrics"} <= set(paths)
    assert http.get("/nowhere").json()["error"]["code"] == "not_found"
    assert http.get("/v1/chat/completions").status_code == 405


def test_figures_have_the_names_that_dashboards_for_vllm_ask_for(http: httpx.Client, clip: Path) -> None:
    def sample(name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(http.get("/metrics").text):
            for one in family.samples:
                if one.name == name and labels.items() <= one.labels.items():
                    return one.value
        raise AssertionError(name)

    asked = {"messages": about(data_url(clip), "What?"), "max_tokens": 3}
    before = sample("vllm:generation_tokens_total")
    used = http.post("/v1/chat/completions", json=asked).json()["usage"]["completion_tokens"]
    assert sample("vllm:generation_tokens_total") - before == used
    for name in (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:prompt_tokens_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:mm_cache_queries_total",
        "vllm:mm_cache_hits_total",
        "vllm:num_preemptions_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:e2e_request_latency_seconds_sum",
        "vllm:request_queue_time_seconds_count",
        "vllm:request_prefill_time_seconds_count",
        "vllm:request_decode_time_seconds_count",
        "vllm:request_prompt_tokens_count",
        "vllm:request_generation_tokens_count",
        "lnv:media_decode_seconds_count",
        "lnv:vision_frames_total",
    ):
        assert sample(name, model_name=MODEL) >= 0
    assert sample("vllm:request_success_total", finished_reason="length") >= 1
    assert sample("lnv:http_requests_total", route="/v1/chat/completions", status="200") >= 1


def test_what_lmms_eval_posts_is_answered(http: httpx.Client, clip: Path) -> None:
    """The payload of its `openai` model with pass_video_url=True."""
    content = [
        {"type": "video_url", "video_url": {"url": clip.as_uri()}},
        {"type": "text", "text": "Which?\nA. one\nB. two\nAnswer with the option's letter."},
    ]
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 16,
        "temperature": 0,
        "media_io_kwargs": {"video": {"num_frames": 8}},
    }
    answer = http.post("/v1/chat/completions", json=asked, headers={"Authorization": "Bearer x"})
    assert answer.json()["choices"][0]["message"]["content"]


def test_what_load_generators_post_is_answered(http: httpx.Client) -> None:
    """The payload of `vllm bench serve` with the openai-chat back end."""
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what is it"}]}],
        "max_completion_tokens": 5,
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 5


@pytest.mark.slow
def test_transformers_chat_talks_to_the_server(server: Running) -> None:
    command = "from transformers.cli.transformers import main; main()"
    words = ["chat", MODEL, f"{server.url}/v1", "max_new_tokens=5", "do_sample=False"]
    talk = subprocess.run(
        [sys.executable, "-c", command, *words],
        input="What is in the video?\n!exit\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "already loaded" in talk.stdout, talk.stdout + talk.stderr
    assert talk.stdout.count(f"<{MODEL}>:") == 1
    assert "error" not in talk.stdout.lower()
