"""Connect to the address that was checked, and no other."""

import http.client
import ipaddress
import socket
import ssl
import time

from llava_next_video.errors import MediaError

# Addresses that carry an IPv4 address inside, which a router on the way may unwrap.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is on the open internet, also the one wrapped inside an IPv6 address.

    >>> is_public("93.184.215.14"), is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("fe80::1")
    (True, False, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def connect(
    scheme: str, host: str, port: int, *, public_only: bool, deadline: float
) -> http.client.HTTPConnection:
    """A connection to the host, whose name is looked up once.

    Every address must be allowed, and the one that was checked is the one connected to: a name that
    answers differently the second time gains nothing.

    Raises: MediaError if the host is unknown, unreachable or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaError(f"{host}: unknown host ({error})") from error
    addresses = list(dict.fromkeys(entry[4][0] for entry in found))
    private = [address for address in addresses if public_only and not is_public(str(address))]
    if private or not addresses:
        raise MediaError(
            f"{host}: at {', '.join(map(str, private)) or 'no address'}, which is not on the public "
            "internet; download it and give the file, or read it in Python with "
            "FetchPolicy(public_addresses_only=False)"
        )
    failure: OSError | None = None
    for address in addresses:
        try:
            raw = socket.create_connection((str(address), port), timeout=left(deadline, host))
        except OSError as error:
            failure = error
            continue
        try:
            return _over(raw, scheme, host, port)
        except OSError as error:
            raw.close()
            failure = error
    raise MediaError(f"{host}: cannot be reached ({failure})") from failure


def left(deadline: float, host: str) -> float:
    """Seconds until the deadline.

    Raises: MediaError if it has passed.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise MediaError(f"{host}: took too long; the time-out is FetchPolicy.timeout_s")
    return seconds


def _over(raw: socket.socket, scheme: str, host: str, port: int) -> http.client.HTTPConnection:
    """HTTP over a socket that is connected already, so that the library looks nothing up again."""
    if scheme == "http":
        connection = http.client.HTTPConnection(host, port)
    else:
        context = ssl.create_default_context()
        raw = context.wrap_socket(raw, server_hostname=host)
        connection = http.client.HTTPSConnection(host, port, context=context)
    connection.sock = raw
    connection.auto_open = 0
    return connection
