"""URLs to bytes, and what a URL may not reach."""

import base64
import binascii
import contextlib
import http.client
import io
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit
from urllib.request import url2pathname

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media.address import connect, left
from llava_next_video.media.files import open_regular
from llava_next_video.media.limits import Limits

_SCHEMES = ("data", "file", "http", "https")
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 3
_CHUNK = 1 << 16
# What a path may hold as it is; the rest (letters beyond ASCII) goes in percent signs.
_URL_SAFE = "/?#[]@!$&'()*+,;=:-._~%"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What URLs may reach. The default suits a person's own program; a server narrows it.

    `schemes` are those allowed. `domains` (None: all) allow themselves and their subdomains. `folders`
    (None: all) are where file:// may read, after symbolic links. `public_addresses_only` refuses
    addresses inside private networks. `timeout_s` bounds one fetch from the first look-up to the last byte.
    """

    schemes: frozenset[str] = frozenset(_SCHEMES)
    domains: tuple[str, ...] | None = None
    folders: tuple[Path, ...] | None = None
    public_addresses_only: bool = True
    timeout_s: float = 60.0


def is_url(text: str) -> bool:
    """Whether the text is a URL of a kind we know; a path with a colon is none.

    >>> is_url("https://example.org/a.mp4"), is_url("a:b.mp4")
    (True, False)
    """
    scheme, colon, rest = text[:8].partition(":")
    scheme = scheme.lower()
    return bool(colon) and (scheme == "data" or (scheme in _SCHEMES and rest.startswith("/")))


def short_url(url: str) -> str:
    """The URL as a message may show it: without its query, its secrets and its data.

    >>> short_url("https://me:secret@example.org/a.mp4?token=1")
    'https://example.org/a.mp4'
    """
    if url[:5].lower() == "data:":
        return "data URL"
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "URL"


def fetch(url: str, limits: Limits = Limits(), policy: FetchPolicy = FetchPolicy()) -> bytes:  # noqa: B008
    """What a data:, file://, http:// or https:// URL holds.

    Raises: MediaError if it cannot be had or the policy forbids it; MediaLimitError beyond the limit on
    bytes, which are counted while they come.
    """
    with open_url(url, limits, policy) as file:
        data = file.read(limits.bytes + 1)
    if len(data) > limits.bytes:
        raise _too_large(short_url(url), limits)
    return data


def open_url(url: str, limits: Limits, policy: FetchPolicy) -> io.BufferedIOBase:
    """What a URL holds, as a file to read from its start; a local file is not copied into memory."""
    scheme = url[:8].partition(":")[0].lower()
    if scheme not in _SCHEMES:
        raise MediaError(f"{short_url(url)}: expected a URL that starts with {', '.join(_SCHEMES)}")
    _allow_scheme(scheme, url, policy)
    if scheme == "data":
        return io.BytesIO(_decoded(*_data_parts(url), limits))
    if scheme == "file":
        return _open_local(url, policy)
    return io.BytesIO(_download(url, limits, policy))


def data_url_frames(url: str, limits: Limits, policy: FetchPolicy) -> list[bytes] | None:
    """The frames of `data:video/jpeg;base64,FRAME,FRAME,...`, or None if the text is none of these.

    Source: vLLM, `vllm/multimodal/media/video.py`, where clients send frames that they sampled themselves.
    """
    if not url[:16].lower().startswith("data:video/jpeg;") and not url[:16].lower().startswith(
        "data:video/jpeg,"
    ):
        return None
    _allow_scheme("data", url, policy)
    header, data = _data_parts(url)
    if data.count(",") >= limits.frames:
        raise MediaLimitError(f"data URL: more than {limits.frames} frames, which is the limit")
    return [_decoded(header, part, limits) for part in data.split(",")]


def _allow_scheme(scheme: str, url: str, policy: FetchPolicy) -> None:
    if scheme not in policy.schemes:
        allowed = ", ".join(sorted(policy.schemes)) or "none"
        raise MediaError(f"{short_url(url)}: {scheme} URLs are not allowed here; allowed are {allowed}")


def _data_parts(url: str) -> tuple[str, str]:
    header, comma, data = url[5:].partition(",")
    if not comma:
        raise MediaError("data URL: it has no comma; expected data:video/mp4;base64,...")
    return header, data


def _decoded(header: str, data: str, limits: Limits) -> bytes:
    is_base64 = header.lower().endswith(";base64")
    # Before decoding, so that a long URL does not take its memory twice.
    if (len(data) * 3 // 4 if is_base64 else len(data) // 3) > limits.bytes:
        raise _too_large("data URL", limits)
    if not is_base64:
        return unquote_to_bytes(data)
    try:
        return base64.b64decode(unquote_to_bytes(data) if "%" in data else data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"data URL: its base64 is damaged ({error})") from error


def _open_local(url: str, policy: FetchPolicy) -> io.BufferedIOBase:
    parts = _split(url)
    if parts.netloc not in ("", "localhost"):
        raise MediaError(f"{short_url(url)}: names the host {parts.netloc}; expected file:///path")
    path = Path(url2pathname(parts.path))
    if policy.folders is not None:
        path = path.resolve()
        if not any(path.is_relative_to(folder.resolve()) for folder in policy.folders):
            raise MediaError(f"{short_url(url)}: outside the folders that are allowed here")
    return open_regular(path)


def _split(url: str) -> SplitResult:
    # Parsers disagree about these, and a disagreement is how checks are passed by.
    if any(ord(character) <= 32 or ord(character) == 127 or character == "\\" for character in url):
        raise MediaError(f"{short_url(url)!r}: a URL with blanks, control characters or backslashes")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is checked when it is read
    except ValueError as error:
        raise MediaError(f"not a URL ({error})") from error
    return parts


def _download(url: str, limits: Limits, policy: FetchPolicy) -> bytes:
    deadline = time.monotonic() + policy.timeout_s
    for _ in range(_MOST_REDIRECTS + 1):
        answer = _get(url, limits, policy, deadline)
        if isinstance(answer, bytes):
            return answer
        if url[:6].lower() == "https:" and answer[:6].lower() != "https:":
            raise MediaError(
                f"{short_url(url)}: redirects from https to {short_url(answer)}, which is refused"
            )
        url = answer
    raise MediaError(f"{short_url(url)}: more than {_MOST_REDIRECTS} redirects")


def _get(url: str, limits: Limits, policy: FetchPolicy, deadline: float) -> bytes | str:
    """The bytes there, or the URL they redirect to; every stop is checked like the first."""
    parts, name = _split(url), short_url(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise MediaError(f"{name}: expected http://host/path or https://host/path")
    _allow_scheme(parts.scheme, url, policy)
    if parts.username is not None or parts.password is not None:
        raise MediaError(f"{name}: URLs with a user name or password are refused")
    host = parts.hostname.rstrip(".")
    if policy.domains is not None and not any(
        host == domain or host.endswith(f".{domain}") for domain in policy.domains
    ):
        raise MediaError(f"{name}: the host {host} is not among those allowed here")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = connect(
        parts.scheme, host, port, public_only=policy.public_addresses_only, deadline=deadline
    )
    socket_there = connection.sock
    # A server that sends a byte now and then would never run into the socket's own time-out.
    guard = threading.Timer(left(deadline, host), _hang_up, [socket_there])
    guard.start()
    try:
        target = parts.path or "/"
        connection.request(
            "GET",
            quote(f"{target}?{parts.query}" if parts.query else target, safe=_URL_SAFE),
            headers={"Accept-Encoding": "identity", "User-Agent": "llava-next-video", "Connection": "close"},
        )
        with contextlib.closing(connection.getresponse()) as response:
            moved = response.getheader("Location")
            if response.status in _REDIRECTS and moved:
                return urljoin(url, moved)
            if response.status != 200:
                raise MediaError(f"{name}: the server answered {response.status} {response.reason}")
            data = _body(response, name, limits)
        left(deadline, host)  # a body without a length ends, for all we see, where the guard hung up
        return data
    except (OSError, http.client.HTTPException, ValueError) as error:
        left(deadline, host)  # says so if it was the guard that hung up
        raise MediaError(f"{name}: the download broke off ({error or type(error).__name__})") from error
    finally:
        guard.cancel()
        connection.close()
        socket_there.close()


def _hang_up(there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket's own, which takes the session away from the thread that reads.
        socket.socket.shutdown(there, socket.SHUT_RDWR)


def _body(response: http.client.HTTPResponse, name: str, limits: Limits) -> bytes:
    """The bytes, counted while they come: neither the header nor the sender is trusted."""
    encoding = response.getheader("Content-Encoding", "identity")
    if encoding != "identity":
        raise MediaError(f"{name}: the server sent {encoding} encoding, which was not asked for")
    promised = response.getheader("Content-Length", "")
    if promised.isdigit() and int(promised) > limits.bytes:
        raise _too_large(name, limits)
    data = bytearray()
    while chunk := response.read(_CHUNK):
        data += chunk
        if len(data) > limits.bytes:
            raise _too_large(name, limits)
    if promised.isdigit() and len(data) != int(promised):
        raise MediaError(f"{name}: the download broke off after {len(data)} of {promised} bytes")
    return bytes(data)


def _too_large(name: str, limits: Limits) -> MediaLimitError:
    return MediaLimitError(f"{name}: more than {limits.bytes} bytes, which is the limit")
