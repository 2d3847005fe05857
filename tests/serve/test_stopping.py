"""Told to stop once, twice, or at the end of its patience: what becomes of requests under way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.serve.conftest import about, data_url
from uvicorn.config import Config

from llava_next_video.serve.address import listen_at
from llava_next_video.serve.door import Door
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.server import Server
from llava_next_video.serve.settings import ServeSettings

CHAT = "/v1/chat/completions"


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer that never ends: at `/stream` it has begun, elsewhere not."""
    if scope["path"] == "/stream":
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
    await asyncio.Event().wait()


async def stop(told: int, drain_s: float = 60.0) -> tuple[httpx.Response, httpx.Response]:
    """Ask for a plain answer and a stream, tell the server so many times to stop; what the clients got."""
    door = Door(endless, ServeSettings(drain_s=drain_s), Metrics("m"))
    server = Server(Config(door, lifespan="off", log_config=None), door, lambda: None)
    with listen_at("127.0.0.1", 0)[0] as bound, ThreadPoolExecutor(2) as clients:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        serving = asyncio.create_task(server.serve([bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        asked = [
            clients.submit(httpx.post, url + path, json={}, timeout=20) for path in ("/plain", "/stream")
        ]
        while door.under_way < 2:
            await asyncio.sleep(0.01)
        for _ in range(told):
            server.handle_exit(signal.SIGINT, None)
        await serving
        plain, stream = (one.result(timeout=1) for one in asked)
        return plain, stream


def check(plain: httpx.Response, stream: httpx.Response) -> None:
    """Both are told that the server stopped, each in its way."""
    assert (plain.status_code, plain.headers["retry-after"]) == (503, "5")
    assert plain.json()["error"]["code"] == "stopping"
    assert stream.status_code == 200
    *begun, last, end = stream.text.split("\n\n")
    assert begun
    assert json.loads(last.removeprefix("data: "))["error"] == plain.json()["error"]
    assert not end


def test_told_twice_to_stop_a_server_ends_what_is_under_way_with_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = time.monotonic()
    check(*asyncio.run(stop(told=2)))
    assert time.monotonic() - began < 10
    assert not [record for record in caplog.records if record.exc_info]


def test_what_is_not_finished_in_the_time_for_it_ends_with_an_error_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check(*asyncio.run(stop(told=1, drain_s=0.1)))
    assert not [record for record in caplog.records if record.exc_info]


def answering(url: str) -> float:
    """Answers that the engine of a server is writing."""
    name = "vllm:num_requests_running"
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_at_a_terminal_leaves_no_traceback(times: int, clip: Path) -> None:
    words = ["serve", "--port", "0", "--decoders", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "llava_next_video.cli", *words],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        url = next(line for line in server.stderr if " serves " in line).split()[0]
        # Told once, what is asked for is written; told twice, it could not be in this time.
        size = {"n": 1, "max_tokens": 100} if times == 1 else {"n": 8, "max_tokens": 1500}
        long = {"messages": about(data_url(clip)), "ignore_eos": True, "temperature": 1.0, **size}
        with ThreadPoolExecutor(2) as clients:
            asked: list[Future[httpx.Response]] = [
                clients.submit(httpx.post, url + CHAT, json={**long, "stream": stream}, timeout=60)
                for stream in (False, True)
            ]
            until = time.monotonic() + 15
            while answering(url) < 2 and not any(one.done() for one in asked):
                assert time.monotonic() < until
            for _ in range(times):
                os.killpg(server.pid, signal.SIGINT)  # as a terminal does: to every process of the command
                time.sleep(0.2)
            plain, stream = (one.result() for one in asked)
        _, log = server.communicate(timeout=20)
    finally:
        server.kill()
    assert server.returncode == 0, log
    assert "Traceback" not in log, log
    if times == 1:
        assert plain.json()["usage"]["completion_tokens"] == 100
        assert stream.text.endswith("data: [DONE]\n\n")
    else:
        check(plain, stream)
