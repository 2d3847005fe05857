"""Replicas of the server on a Ray cluster; the one door to `ray.serve`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import ConfigError, MissingExtraError
from llava_next_video.serve.address import refuse_port
from llava_next_video.serve.app import build_app
from llava_next_video.serve.settings import ServeSettings

NAME = "llava-next-video"


def read_cluster(words: str) -> int:
    """The number of replicas that `replicas=N` asks for.

    >>> read_cluster("replicas=2")
    2

    Raises:
        ConfigError: Anything else.
    """
    name, _, number = words.partition("=")
    if name != "replicas" or not number.isdigit() or int(number) < 1:
        raise ConfigError(f"--ray {words!r}; expected replicas=N, for instance replicas=2")
    return int(number)


def start(
    model: str | None,
    settings: ServeSettings,
    *,
    replicas: int,
    host: str,
    port: int,
    load: Mapping[str, object],
    cpus: float | int = 1,
) -> Callable[[], None]:
    """Serve so many replicas on the cluster that is there, or on one of this machine; gives what ends them.

    Each replica loads the model by itself and has its own engine, decoders, queue and caches.

    Raises:
        ConfigError: No such port, or the cluster cannot listen at this address.
        MissingExtraError: Ray Serve is not installed.
    """
    refuse_port(port)
    ray_serve = _library()
    app = replica_app(model, settings, load)
    options: dict[str, object] = {
        "num_replicas": replicas,
        "max_ongoing_requests": settings.max_requests,
        "ray_actor_options": {"num_cpus": cpus},
        "graceful_shutdown_timeout_s": settings.drain_s,
    }
    deployment = ray_serve.deployment(**options)(ray_serve.ingress(app)(_Replica))
    try:
        ray_serve.start(http_options={"host": host, "port": port})
    except RuntimeError as error:
        if "Failed to bind" not in str(error):
            raise
        ray_serve.shutdown()
        raise ConfigError(
            f"--host {host} --port {port}: a machine of the cluster has no such address, or it is taken "
            "there; give others"
        ) from error
    ray_serve.run(deployment.bind(), name=NAME, route_prefix="/")
    return ray_serve.shutdown


def replica_app(model: str | None, settings: ServeSettings, load: Mapping[str, Any]) -> Callable[[], ASGIApp]:
    """Makes the application where the replica runs."""

    def build() -> ASGIApp:
        return build_app(VideoAssistant.load(model, **load), settings)[0]

    return build


class _Replica:
    """What Ray keeps alive; the application inside does the work."""


def _library() -> Any:
    try:
        return importlib.import_module("ray.serve")
    except ImportError as error:
        raise MissingExtraError(
            "serving on a cluster needs Ray Serve; pip install 'llava-next-video[serve,ray]'"
        ) from error
