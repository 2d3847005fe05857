"""Keys, tenants, queue, sizes, deadline, clients that leave, and stopping."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.serve.conftest import Running, about, data_url, serving, write_film

from llava_next_video import VideoAssistant
from llava_next_video.errors import ConfigError
from llava_next_video.serve.settings import ServeSettings

LONG = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1500, "ignore_eos": True}
SHORT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def strict(load: Callable[[], VideoAssistant]) -> Iterator[Running]:
    """A server with two keys, room for two requests of 100 kB, little time, and one page that may ask."""
    with serving(
        load(),
        api_keys=("first", "second"),
        origins=("https://page.example",),
        max_requests=2,
        max_body_bytes=100_000,
        deadline_s=1.5,
    ) as running:
        yield running


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer"}, key("firs"), key("firstt"), {"Authorization": "first"}]
)
def test_without_a_right_key_everything_but_probes_and_page_is_closed(
    strict: Running, header: dict[str, str]
) -> None:
    with httpx.Client(base_url=strict.url, headers=header) as http:
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/version", "/nowhere"):
            assert http.get(path).status_code == 401, path
        for path in (CHAT, "/v1/completions", "/v1/responses", "/v1/frames", "/tokenize", "/load_model"):
            assert http.post(path, json=SHORT).status_code == 401, path
        for path in ("/health", "/ready", "/", "/page.css", "/page.js"):
            assert http.get(path).status_code == 200, path


def test_any_of_the_keys_opens(strict: Running) -> None:
    for name in ("first", "second"):
        assert httpx.post(strict.url + CHAT, json=SHORT, headers=key(name)).status_code == 200


def test_what_is_kept_for_one_key_does_not_exist_for_another(strict: Running, tmp_path: Path) -> None:
    url = data_url(write_film(tmp_path, 5))

    def ask(who: str, messages: list[dict[str, object]]) -> httpx.Response:
        asked = {"messages": messages, "max_tokens": 1}
        return httpx.post(strict.url + CHAT, json=asked, headers=key(who))

    def cached(who: str) -> int:
        usage = ask(who, about(url, "What?", uuid="shared name")).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    named = [{"role": "user", "content": [{"type": "video_url", "uuid": "shared name"}]}]
    frames = strict.desk.bridge.thread.report().frames
    assert [cached("first"), cached("first") > 0] == [0, True]
    assert ask("second", named).json()["error"]["code"] == "media_unknown"
    assert cached("second") == 0
    # The tower saw the eight frames twice: features are not shared either.
    assert strict.desk.bridge.thread.report().frames - frames == 16


def test_a_salt_of_the_clients_own_keeps_requests_apart(http: httpx.Client, clip: Path) -> None:
    def cached(salt: str) -> int:
        asked = {"messages": about(data_url(clip), "Who?"), "max_tokens": 1, "cache_salt": salt}
        usage = http.post(CHAT, json=asked).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert [cached("a"), cached("a") > 0, cached("b")] == [0, True, 0]


def test_other_origins_are_not_told_that_they_may_ask(server: Running, strict: Running) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for running, origin, allowed in (
        (server, "https://page.example", None),
        (strict, "https://page.example", "https://page.example"),
        (strict, "https://other.example", None),
    ):
        answer = httpx.options(running.url + CHAT, headers={"Origin": origin, **asked})
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_a_form_of_another_page_is_no_request(http: httpx.Client) -> None:
    """Browsers send text/plain anywhere without asking; JSON they send only where CORS allows it."""
    answer = http.post(CHAT, content=json.dumps(SHORT), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 400


def test_a_large_body_is_refused_before_it_is_read(strict: Running) -> None:
    host, port = strict.url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first\r\nContent-Length: 100001\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(head.encode())
        assert b"413" in line.recv(4096).split(b"\r\n")[0]

    def endless() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    answer = httpx.post(strict.url + CHAT, content=endless(), headers=key("first"))
    assert answer.status_code == 413
    assert strict.rests_within(1)
    assert strict.door.body_bytes == 0


def test_beyond_the_queue_requests_are_sent_away_and_the_late_ones_are_told_so(strict: Running) -> None:
    strict.rests_within(5)
    ask = lambda body: httpx.post(strict.url + CHAT, json=body, headers=key("first"), timeout=30)  # noqa: E731
    with ThreadPoolExecutor(2) as others:
        slow = [others.submit(ask, {**LONG, "stream": stream}) for stream in (False, True)]
        while strict.door.under_way < 2:
            time.sleep(0.005)
        busy = ask(SHORT)
        assert httpx.get(f"{strict.url}/health").status_code == 200
        answers = [one.result() for one in slow]
    assert (busy.status_code, busy.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(busy.headers["retry-after"]) >= 1
    if answers[0].status_code != 200:  # a fast machine writes 1,500 tokens in time
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (504, "deadline_exceeded")
        assert json.loads(answers[1].text.split("data: ")[-1])["error"]["code"] == "deadline_exceeded"
    assert strict.rests_within(1)
    assert ask(SHORT).status_code == 200


def leave_early(url: str, body: dict[str, object], after_s: float) -> None:
    """Ask, and hang up."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(f"{head}{len(content)}\r\n\r\n".encode() + content)
        line.settimeout(0.01)
        until = time.monotonic() + after_s
        while time.monotonic() < until:
            try:
                if not line.recv(65536):
                    return
            except TimeoutError:
                pass


def leave_in_crowds(server: Running, folder: Path, clients: int, longest_s: float) -> None:
    rng = random.Random(3)
    urls = [data_url(write_film(folder, seed)) for seed in range(3)]
    threads = [
        threading.Thread(
            target=leave_early,
            args=(
                server.url,
                {
                    "messages": about(rng.choice(urls), "Describe it."),
                    "media_io_kwargs": {"video": {"num_frames": rng.randint(1, 16)}},
                    "max_tokens": 1000,
                    "ignore_eos": True,
                    "stream": rng.random() < 0.5,
                },
                rng.uniform(0, longest_s),
            ),
        )
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_clients_that_leave_take_their_work_with_them(server: Running, tmp_path: Path) -> None:
    leave_in_crowds(server, tmp_path, 6, longest_s=0.5)
    assert server.rests_within(3.0)


@pytest.mark.slow
def test_a_hundred_clients_that_leave_at_random_moments_hold_nothing_after_a_second(
    server: Running, tmp_path: Path
) -> None:
    leave_in_crowds(server, tmp_path, 100, longest_s=2.0)
    assert server.rests_within(1.0)
    children = [decoder.child for decoder in server.desk.media.decoders]
    assert all(child is None or Path(f"/proc/{child}").exists() for child in children)


def test_each_request_is_one_line_of_the_log_with_its_name(
    http: httpx.Client, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="llava_next_video.access"):
        asked = {"messages": about(data_url(clip)), "max_tokens": 2}
        answer = http.post(CHAT, json=asked, headers={"X-Request-Id": "mine-7"})
        http.post(CHAT, json={}, headers={"X-Request-Id": "a bad name"})
        until = time.monotonic() + 5
        while len(caplog.records) < 2 and time.monotonic() < until:  # a line is written after its answer
            time.sleep(0.005)
    assert answer.headers["x-request-id"] == "mine-7"
    first, second = (json.loads(record.message) for record in caplog.records)
    assert (first["request"], first["status"], first["visual_tokens"]) == ("mine-7", 200, 128)
    assert first["seconds"] > 0
    assert (second["status"], len(second["request"])) == (400, 32)


@pytest.mark.slow
def test_a_stopping_server_finishes_what_it_has_begun(load: Callable[[], VideoAssistant]) -> None:
    with serving(load()) as running, ThreadPoolExecutor(1) as other:
        asked = {**LONG, "max_tokens": 40}
        slow = other.submit(lambda: httpx.post(running.url + CHAT, json=asked, timeout=30))
        while not running.door.under_way:
            time.sleep(0.005)
        running.door.closing = True
        assert httpx.get(f"{running.url}/ready").status_code == 503
        refused = httpx.post(running.url + CHAT, json=SHORT)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        running.server.should_exit = True
        assert slow.result().json()["usage"]["completion_tokens"] == 40


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for wrong in ({"frames": 0}, {"frames": 65}, {"api_keys": ("",)}, {"deadline_s": -1.0}):
        with pytest.raises(ConfigError):
            ServeSettings(**wrong)  # type: ignore[arg-type]
