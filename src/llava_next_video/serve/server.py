"""Run the application until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from uvicorn.config import Config

from llava_next_video.assistant import VideoAssistant
from llava_next_video.serve.address import unavailable
from llava_next_video.serve.app import build_app
from llava_next_video.serve.door import Door
from llava_next_video.serve.settings import ServeSettings

# The engine's thread holds Python between its operations; others get their turn this often.
SWITCH_S = 0.001
# For clients to take the error that ends their request; then their connections are closed.
PARTING_S = 2


class Server(uvicorn.Server):
    """Stops in steps: new requests are refused, those under way finished or cut short, then all is closed."""

    def __init__(self, config: Config, door: Door, up: Callable[[], None]) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = round(door.settings.drain_s) + PARTING_S
        self._door = door
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say so.

        Raises:
            ConfigError: Another program has begun to listen there since the sockets were bound.
        """
        try:
            await super().startup(sockets)
        except OSError as error:
            await self.lifespan.shutdown()
            host, port = sockets[0].getsockname()[:2] if sockets else (self.config.host, self.config.port)
            raise unavailable(host, port, error) from error
        self._up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Told to stop: finish what is under way; told so again: end it with an error."""
        loop = asyncio.get_running_loop()
        if not self.should_exit:
            self._door.closing = self.should_exit = True
            loop.call_soon_threadsafe(loop.call_later, self._door.settings.drain_s, self._door.cut_short)
            return
        loop.call_soon_threadsafe(self._door.cut_short)
        loop.call_soon_threadsafe(loop.call_later, PARTING_S, self._leave)

    def _leave(self) -> None:
        self.force_exit = True


def serve(
    assistant: VideoAssistant,
    settings: ServeSettings,
    sockets: Sequence[socket.socket],
    up: Callable[[], None] = lambda: None,
) -> None:
    """Serve at bound sockets until SIGINT or SIGTERM; `up` is called once requests are answered.

    The access log goes to stderr, one JSON object a line.

    Raises:
        ConfigError: Another program has begun to listen there since the sockets were bound.
    """
    app, door = build_app(assistant, settings)
    config = Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
    )
    write_log()
    sys.setswitchinterval(SWITCH_S)
    # What was loaded stays; collections need not look at it again.
    gc.freeze()
    Server(config, door, up).run(list(sockets))


def write_log() -> None:
    """Send the log to stderr: its own lines as they are, warnings of others with their names.

    That a request of a client who took nothing any more was cancelled in the end is no fault of the server:
    uvicorn tells it with a traceback, which is left out.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter('{"level": "%(levelname)s", "log": "%(name)s", "told": "%(message)s"}')
    )
    plain = logging.StreamHandler(sys.stderr)
    plain.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("llava_next_video.access")
    access.handlers, access.propagate = [plain], False
    access.setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    logging.getLogger("uvicorn.error").addFilter(_not_cancelled)


def _not_cancelled(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
