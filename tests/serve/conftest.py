"""A real server on a port of its own, and clips of the toy world to ask it about."""

from __future__ import annotations

import asyncio
import base64
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest
import uvicorn

from llava_next_video import VideoAssistant
from llava_next_video.serve.app import build_app
from llava_next_video.serve.desk import Desk
from llava_next_video.serve.door import Door
from llava_next_video.serve.settings import ServeSettings
from llava_next_video.world import film, random_film, random_scene

SOON_S = 60.0


@dataclass(slots=True, kw_only=True)
class Running:
    """A server that runs in this process, so that a test can look inside."""

    url: str
    door: Door
    desk: Desk
    server: uvicorn.Server

    def at_rest(self) -> bool:
        """Whether nothing is held for anybody: no request, page, feature, decoder or frame."""
        load = self.desk.bridge.thread.report()
        busy = (load.running, load.waiting, load.pages_used, load.features_in_use)
        return not any((*busy, self.desk.media.busy, self.desk.media.held_bytes, self.door.under_way))

    def rests_within(self, seconds: float) -> bool:
        """Whether it comes to rest in so many seconds."""
        until = time.monotonic() + seconds
        while not self.at_rest():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True


@contextmanager
def serving(assistant: VideoAssistant, **choices: object) -> Iterator[Running]:
    """A server with these settings while the block runs."""
    settings = ServeSettings(**{"decoders": 1, **choices})  # type: ignore[arg-type]
    app, door = build_app(assistant, settings)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    until = time.monotonic() + SOON_S
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < until
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    desk: Desk = door.app.state.desk  # type: ignore[attr-defined]
    try:
        yield Running(url=f"http://127.0.0.1:{port}", door=door, desk=desk, server=server)
    finally:
        server.should_exit = True
        thread.join(SOON_S)


@pytest.fixture(scope="session")
def load() -> Callable[[], VideoAssistant]:
    """Loads the checkpoint of the package; a server owns the network that it is given."""
    return VideoAssistant.load


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server may read clips from."""
    return tmp_path_factory.mktemp("shown")


@pytest.fixture(scope="session")
def server(load: Callable[[], VideoAssistant], shown: Path) -> Iterator[Running]:
    """A server without keys that may read one folder."""
    with serving(load(), folders=(shown,)) as running:
        yield running


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    """Speaks to that server."""
    with httpx.Client(base_url=server.url, timeout=SOON_S) as client:
        yield client


def write_film(folder: Path, seed: int) -> Path:
    """A clip of a scene that the seed decides."""
    rng = random.Random(seed)
    scene = random_scene(rng, things=1)
    return film(scene, folder / f"{seed}.mp4", random_film(rng, scene))


@pytest.fixture(scope="session")
def clip(shown: Path) -> Path:
    """A clip of the toy world."""
    return write_film(shown, 1)


def data_url(path: Path, kind: str = "video/mp4") -> str:
    """A file inside a URL."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def about(url: str, question: str = "What is in the video?", **more: object) -> list[dict[str, object]]:
    """Messages that ask about one clip."""
    part = {"type": "video_url", "video_url": {"url": url}, **more}
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
