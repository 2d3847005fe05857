"""Where a server listens, taken before the model is loaded."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from llava_next_video.errors import ConfigError

# What a host with several addresses may lack without harm: `localhost` where IPv6 is switched off.
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
WAY_OUT = "127.0.0.1 is for this machine only, 0.0.0.0 listens at its every address"


def listen_at(host: str, port: int) -> tuple[socket.socket, ...]:
    """One socket for each address of the host, bound; nobody is answered before they listen.

    Port 0 takes any that is free, the same one for every address. An empty host is every address.

    Raises:
        ConfigError: No such port or host, an address of another machine, or one that is taken.
    """
    refuse_port(port)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such host; {WAY_OUT}") from error
    missing: OSError | None = None
    with ExitStack() as held:
        taken: list[socket.socket] = []
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            asked = port or (taken[0].getsockname()[1] if taken else 0)
            try:
                one = _bound(family, (address[0], asked, *address[2:]))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise unavailable(host, asked, error) from error
                missing = error
            else:
                taken.append(held.enter_context(one))
        if missing is not None and not taken:
            raise unavailable(host, port, missing) from missing
        held.pop_all()
    return tuple(taken)


def refuse_port(port: int) -> None:
    """Raise on a number that is no port.

    Raises:
        ConfigError: With the range.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: ports go from 1 to 65535, and 0 takes any that is free")


def url_of(host: str, sockets: Sequence[socket.socket]) -> str:
    """How to reach what was bound.

    >>> with socket.create_server(("127.0.0.1", 0)) as one:
    ...     url_of("::1", [one]) == f"http://[::1]:{one.getsockname()[1]}"
    True
    """
    port = sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def unavailable(host: str, port: int, error: OSError) -> ConfigError:
    """Why nobody can listen there, and the way out.

    >>> print(unavailable("127.0.0.1", 80, PermissionError(errno.EACCES, "Permission denied")))
    --port 80: this user may not take it; take one from 1024 on
    """
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"--port {port} of {host} is taken by another program; stop that, or give another port "
            "(0: any that is free)"
        )
    if error.errno in ABSENT:
        return ConfigError(f"--host {host} is no address of this machine; {WAY_OUT}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"--port {port}: this user may not take it; take one from 1024 on")
    return ConfigError(f"--host {host} --port {port}: {error.strerror}; {WAY_OUT}")


def _bound(family: int, address: tuple[str | int, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A server that starts again does not wait for the connections of the last one.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one
