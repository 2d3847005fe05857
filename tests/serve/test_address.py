"""Where a server listens: taken before anything slow, or refused in one sentence."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest
from starlette.responses import PlainTextResponse
from uvicorn.config import Config

from llava_next_video.cli import run
from llava_next_video.errors import ConfigError
from llava_next_video.serve.address import listen_at, url_of
from llava_next_video.serve.door import Door
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.server import Server
from llava_next_video.serve.settings import ServeSettings

ELSEWHERE = "198.51.100.7"  # for documentation (RFC 5737): nobody has it


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--port", "99999"], "--port 99999: ports go from 1 to 65535"),
        (["--port", "-1"], "--port -1: ports go from 1 to 65535"),
        (["--port", "0", "--host", ELSEWHERE], f"--host {ELSEWHERE} is no address of this machine"),
        (["--port", "0", "--host", "a..b"], "--host a..b: no such host"),
    ],
)
def test_an_address_that_cannot_be_had_is_told_before_the_model_is_loaded(
    flags: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["llava-next-video", "serve", "--model", "missing", *flags])
    assert run() == 1
    told = capsys.readouterr().err
    assert says in told
    assert len(told.splitlines()) == 1


def test_a_port_of_another_program_is_told_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["llava-next-video", "serve", "--model", "missing", "--port", port])
        assert run() == 1
    assert f"--port {port} of 127.0.0.1 is taken by another program" in capsys.readouterr().err


def test_every_address_of_a_host_gets_the_same_free_port() -> None:
    sockets = listen_at("localhost", 0)
    ports = {one.getsockname()[1] for one in sockets}
    for one in sockets:
        one.close()
    assert len(ports) == 1
    assert 0 not in ports


def test_a_server_says_that_it_serves_once_it_listens() -> None:
    asyncio.run(_start(listen_at("127.0.0.1", 0)[0], told := []))
    assert told == ["up"]


def test_the_second_of_two_servers_that_start_at_once_says_that_the_port_is_taken() -> None:
    first = listen_at("127.0.0.1", 0)[0]
    port = first.getsockname()[1]
    with first, listen_at("127.0.0.1", port)[0] as second:
        first.listen()
        with pytest.raises(ConfigError, match=f"--port {port} of 127.0.0.1 is taken"):
            asyncio.run(_start(second, told := []))
    assert not told


async def _start(bound: socket.socket, told: list[str]) -> None:
    """Start a server there; once it is up, ask whether somebody takes a connection, and stop."""

    def up() -> None:
        socket.create_connection(bound.getsockname(), timeout=5).close()
        assert url_of("127.0.0.1", [bound]).endswith(f":{bound.getsockname()[1]}")
        told.append("up")
        server.should_exit = True

    door = Door(PlainTextResponse("here"), ServeSettings(), Metrics("m"))
    server = Server(Config(door, lifespan="off", log_config=None), door, up)
    await server.serve([bound])
