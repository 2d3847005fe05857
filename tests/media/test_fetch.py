"""URLs give bytes, within limits, and reach only what the policy allows."""

import base64
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media import FetchPolicy, Limits, Sampling, fetch, read_clip, read_image
from llava_next_video.media.address import is_public

HERE = FetchPolicy(public_addresses_only=False, timeout_s=5.0)


class Handler(BaseHTTPRequestHandler):
    """Answers by path; `films` is set by the fixture."""

    film = b""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/film.mp4":
            self.answer(200, self.film)
        elif path.startswith("/hops/"):
            left = int(path.rpartition("/")[2])
            self.answer(302, b"", Location=f"/hops/{left - 1}" if left else "/film.mp4")
        elif path == "/to-file":
            self.answer(302, b"", Location="file:///etc/hostname")
        elif path == "/to-metadata":
            self.answer(302, b"", Location="http://169.254.169.254/latest")
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                return
        elif path == "/drip":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b".")
                    time.sleep(0.02)
            except OSError:
                return
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
        elif path == "/zipped":
            self.answer(200, b"x", **{"Content-Encoding": "gzip"})
        else:
            self.answer(404, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(film) -> Iterator[str]:
    handler = type("Handler", (Handler,), {"film": film().read_bytes()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as there:
        there.daemon_threads = True
        there.block_on_close = False
        thread = threading.Thread(target=there.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://localhost:{there.server_port}"
        there.shutdown()
        thread.join()


def refusal(url: str, limits: Limits = Limits(), policy: FetchPolicy = HERE) -> str:  # noqa: B008
    with pytest.raises(MediaError) as caught:
        fetch(url, limits, policy)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_clip_is_read_over_http(server: str, film) -> None:
    clip = read_clip(f"{server}/film.mp4?size=large", policy=HERE)
    assert clip.key == read_clip(film()).key
    assert clip.name == f"{server}/film.mp4"


def test_addresses_inside_the_network_are_refused_unless_allowed(server: str) -> None:
    told = refusal(f"{server}/film.mp4", policy=FetchPolicy())
    assert "not on the public internet; download it and give the file, or" in told
    port = server.rpartition(":")[2]
    assert "not on the public internet" in refusal(f"http://127.1:{port}/film.mp4", policy=FetchPolicy())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "fc00::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_private_addresses_are_known_in_every_dress(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::6810:84e5", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_redirects_are_followed_three_times_and_no_more(server: str, film) -> None:
    assert fetch(f"{server}/hops/2", Limits(), HERE) == film().read_bytes()
    assert "more than 3 redirects" in refusal(f"{server}/hops/3")


def test_a_redirect_is_checked_like_the_first_address(server: str) -> None:
    assert "expected http" in refusal(f"{server}/to-file")
    only_here = FetchPolicy(public_addresses_only=False, domains=("localhost",))
    assert "169.254.169.254 is not among those allowed" in refusal(f"{server}/to-metadata", policy=only_here)


def test_bytes_are_counted_while_they_come(server: str) -> None:
    with pytest.raises(MediaLimitError, match="more than 100000 bytes"):
        fetch(f"{server}/endless", Limits(bytes=100_000), HERE)
    with pytest.raises(MediaLimitError, match="more than 100 bytes"):
        fetch(f"{server}/film.mp4", Limits(bytes=100), HERE)


def test_a_server_that_drips_is_hung_up_on(server: str) -> None:
    start = time.monotonic()
    hasty = FetchPolicy(public_addresses_only=False, timeout_s=0.3)
    assert "took too long" in refusal(f"{server}/drip", policy=hasty)
    assert time.monotonic() - start < 3


def test_what_a_server_does_wrong_is_said(server: str) -> None:
    assert "answered 404" in refusal(f"{server}/nothing")
    assert "broke off after 9 of 1000 bytes" in refusal(f"{server}/short")
    assert "gzip encoding" in refusal(f"{server}/zipped")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert "cannot be reached" in refusal(f"http://127.0.0.1:{port}/")


def test_domains_and_schemes_may_be_narrowed(server: str) -> None:
    narrow = FetchPolicy(public_addresses_only=False, domains=("example.org",))
    assert "localhost is not among those allowed" in refusal(f"{server}/film.mp4", policy=narrow)
    none = FetchPolicy(schemes=frozenset({"data"}))
    for url in (f"{server}/film.mp4", "file:///etc/hostname"):
        assert "URLs are not allowed here; allowed are data" in refusal(url, policy=none)
    with pytest.raises(MediaError, match="data URLs are not allowed"):
        read_clip("data:video/jpeg;base64,AAAA", policy=FetchPolicy(schemes=frozenset({"https"})))


@pytest.mark.parametrize(
    "url", ["http://me:secret@example.org/", "http://a\\@b/", "http://a b/", "http:///x", "http://a:99999/"]
)
def test_urls_that_parsers_read_differently_are_refused(url: str) -> None:
    assert "secret" not in refusal(url)


def test_a_file_url_stays_inside_the_folders_after_links(tmp_path: Path, film) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    data = film().read_bytes()
    (inside / "a b.mp4").write_bytes(data)
    (outside / "secret.mp4").write_bytes(data)
    (inside / "link.mp4").symlink_to(outside / "secret.mp4")
    policy = FetchPolicy(folders=(inside,))
    assert fetch((inside / "a b.mp4").as_uri(), Limits(), policy) == data
    for url in (
        (inside / "link.mp4").as_uri(),
        (outside / "secret.mp4").as_uri(),
        f"file://{inside}/../outside/secret.mp4",
        f"file://{inside}/%2e%2e/outside/secret.mp4",
    ):
        assert "outside the folders" in refusal(url, policy=policy)
    assert "names the host" in refusal("file://server/share.mp4")


def test_data_urls_hold_clips_and_pictures(film) -> None:
    data = film().read_bytes()
    url = "data:video/mp4;base64," + base64.b64encode(data).decode()
    assert read_clip(url).key == read_clip(data).key
    assert fetch("data:,a%20b") == b"a b"
    with pytest.raises(MediaLimitError):
        fetch(url, Limits(bytes=1000))
    assert "base64 is damaged" in refusal("data:video/mp4;base64,???")
    assert "no comma" in refusal("data:video/mp4;base64")


def test_a_data_url_of_jpegs_is_a_clip_of_frames() -> None:
    import io

    from PIL import Image

    parts = []
    for grey in (0, 120, 240):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (grey, grey, grey)).save(file, "JPEG")
        parts.append(base64.b64encode(file.getvalue()).decode())
    clip = read_clip("data:video/jpeg;base64," + ",".join(parts), Sampling(frames=8))
    assert clip.frames[:, 8, 8, 0].tolist() == [0, 120, 240]
    assert read_image("data:image/jpeg;base64," + parts[1]).image.getpixel((8, 8)) == (120, 120, 120)
    with pytest.raises(MediaLimitError, match="more than 2 frames"):
        read_clip("data:video/jpeg;base64," + ",".join(parts), limits=Limits(frames=2))
