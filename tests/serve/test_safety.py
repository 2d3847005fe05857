"""What a URL may not reach, and what damaged media may not do."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.serve.conftest import Running, about, data_url, serving
from tests.serve.damage import mutated

from llava_next_video import VideoAssistant
from llava_next_video.serve.settings import MEDIUM

CHAT = "/v1/chat/completions"
PUBLIC = "93.184.215.14"

# An internet for the child that fetches: names change their address at the second look, and the one public
# address leads to a server of the test. The code under test is untouched.
INTERNET = """
import json, os, socket
names = {name: iter(addresses) for name, addresses in json.loads(os.environ["TEST_NAMES"]).items()}
look_up, connect = socket.getaddrinfo, socket.create_connection
def getaddrinfo(host, port, *more, **named):
    return look_up(next(names[host]) if host in names else host, port, *more, **named)
def create_connection(address, *more, **named):
    public = address[0] == "93.184.215.14"
    return connect(("127.0.0.1", int(os.environ["TEST_PORT"])) if public else address, *more, **named)
socket.getaddrinfo, socket.create_connection = getaddrinfo, create_connection
"""


class Site(BaseHTTPRequestHandler):
    """Has a clip, redirects, and a page that never ends."""

    seen: list[str]
    clip: bytes
    redirects: dict[str, str]

    def do_GET(self) -> None:
        self.seen.append(f"{self.headers['Host']}{self.path}")
        if self.path in self.redirects:
            self.send_response(302)
            self.send_header("Location", self.redirects[self.path])
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if self.path == "/endless":
            while True:
                self.wfile.write(bytes(1 << 16))
        self.wfile.write(self.clip)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Web(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients hang up on pages that never end."""


@pytest.fixture(scope="module")
def site(clip: Path) -> Iterator[type[Site]]:
    """What stands behind the public address, and also behind this machine's private one."""
    Site.seen, Site.clip, Site.redirects = [], clip.read_bytes(), {}
    with Web(("127.0.0.1", 0), Site) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        port = web.server_address[1]
        Site.redirects = {
            "/private": f"http://127.0.0.1:{port}/clip.mp4",
            "/mapped": f"http://[::ffff:127.0.0.1]:{port}/clip.mp4",
            "/name": f"http://inside.example:{port}/clip.mp4",
            "/file": "file:///etc/passwd",
            "/elsewhere": "http://other.example/clip.mp4",
            "/loop": "/loop",
            "/good": "/clip.mp4",
        }
        os.environ["TEST_PORT"] = str(port)
        yield Site
        web.shutdown()


@pytest.fixture(scope="module")
def reaching(
    load: Callable[[], VideoAssistant], site: type[Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server that may fetch from some hosts; most of them turn out to be inside."""
    names = {
        "cdn.example": [PUBLIC] * 99,
        "inside.example": ["10.0.0.7"] * 99,
        "flips.example": [PUBLIC, "127.0.0.1", "127.0.0.1"],
        "other.example": [PUBLIC] * 99,
    }
    folder = tmp_path_factory.mktemp("internet")
    (folder / "sitecustomize.py").write_text(INTERNET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_NAMES", json.dumps(names))
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        hosts = ("localhost", "127.0.0.1", "169.254.169.254", "0.0.0.0", "2130706433", "0x7f000001")
        hosts += ("::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1")
        hosts += tuple(names.keys() - {"other.example"})
        with serving(load(), domains=hosts, fetch_s=3.0, max_body_bytes=3 << 20) as running:
            yield running


def ask(running: Running, url: str) -> httpx.Response:
    asked = {"messages": about(url), "max_tokens": 1}
    return httpx.post(running.url + CHAT, json=asked, timeout=60)


def test_an_allowed_public_host_is_fetched_from_also_behind_a_redirect(
    reaching: Running, site: type[Site]
) -> None:
    for path in ("/clip.mp4", "/good"):
        answer = ask(reaching, f"http://cdn.example{path}")
        assert answer.status_code == 200, answer.text
    assert "cdn.example/clip.mp4" in site.seen


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/clip.mp4",
        "http://localhost:{port}/clip.mp4",
        "http://[::1]:{port}/clip.mp4",
        "http://[::ffff:127.0.0.1]:{port}/clip.mp4",
        "http://[::ffff:10.0.0.1]/clip.mp4",
        "http://[fe80::1]/clip.mp4",
        "http://0.0.0.0:{port}/clip.mp4",
        "http://2130706433:{port}/clip.mp4",
        "http://0x7f000001:{port}/clip.mp4",
        "http://169.254.169.254/latest/meta-data/",
        "http://inside.example/clip.mp4",
        "http://other.example/clip.mp4",
        "http://evilcdn.example/clip.mp4",
        "http://me:secret@cdn.example/clip.mp4",
        "http://cdn.example\\@127.0.0.1:{port}/clip.mp4",
        "http://cdn.example/private",
        "http://cdn.example/mapped",
        "http://cdn.example/name",
        "http://cdn.example/file",
        "http://cdn.example/elsewhere",
        "http://cdn.example/loop",
        "file:///etc/passwd",
        "ftp://cdn.example/clip.mp4",
        "gopher://127.0.0.1:{port}/_GET",
        "/etc/passwd",
        "",
    ],
)
def test_private_addresses_other_hosts_and_tricks_are_refused_unvisited(
    reaching: Running, site: type[Site], url: str
) -> None:
    before = len(site.seen)
    answer = ask(reaching, url.replace("{port}", os.environ["TEST_PORT"]))
    assert answer.status_code == 400, answer.text
    assert "10.0.0.7" not in answer.text
    visited = site.seen[before:]
    assert all(page.startswith("cdn.example/") and not page.endswith("clip.mp4") for page in visited), visited


def test_a_name_that_changes_its_address_is_looked_up_once(reaching: Running, site: type[Site]) -> None:
    assert ask(reaching, "http://flips.example/clip.mp4").status_code == 200
    before = len(site.seen)
    assert ask(reaching, "http://flips.example/clip.mp4?again").status_code == 400
    assert len(site.seen) == before


def test_a_download_that_never_ends_ends(load: Callable[[], VideoAssistant], reaching: Running) -> None:
    started = time.monotonic()
    answer = ask(reaching, "http://cdn.example/endless")
    assert answer.status_code == 400
    assert time.monotonic() - started < 30
    assert ask(reaching, "http://cdn.example/clip.mp4").status_code == 200


def test_the_network_and_files_are_closed_until_they_are_opened(server: Running) -> None:
    answer = ask(server, "http://cdn.example/clip.mp4")
    assert answer.status_code == 400
    assert "http URLs are not allowed here; allowed are data, file" in answer.text


def test_files_are_read_in_the_allowed_folder_only(
    server: Running, shown: Path, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.mp4").write_bytes(clip.read_bytes())
    for name, target in (("out.mp4", tmp_path / "secret.mp4"), ("in.mp4", clip), ("up", tmp_path)):
        if not (shown / name).is_symlink():
            (shown / name).symlink_to(target)
    if not (shown / "pipe").exists():
        os.mkfifo(shown / "pipe")
    inside = shown.as_uri()
    for url in (f"{inside}/{clip.name}", f"{inside}/in.mp4", f"file://localhost{shown}/{clip.name}"):
        assert ask(server, url).status_code == 200, url
    for url in (
        (tmp_path / "secret.mp4").as_uri(),
        f"{inside}/../{tmp_path.name}/secret.mp4",
        f"{inside}/%2e%2e/{tmp_path.name}/secret.mp4",
        f"{inside}/out.mp4",
        f"{inside}/up/secret.mp4",
        f"{inside}/pipe",
        f"{inside}/absent.mp4",
        inside,
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "file:///dev/zero",
        f"file://elsewhere{shown}/{clip.name}",
    ):
        assert ask(server, url).status_code == 400, url


def test_a_decoder_that_is_killed_is_one_refusal(server: Running, clip: Path, tmp_path: Path) -> None:
    (decoder,) = server.desk.media.decoders
    assert decoder.child is not None
    unseen = tmp_path / "unseen.mp4"
    unseen.write_bytes(clip.read_bytes() + bytes(8))
    os.kill(decoder.child, signal.SIGKILL)
    refused = ask(server, data_url(unseen))
    assert refused.status_code == 400
    assert "the decoder died on it" in refused.text
    assert ask(server, data_url(unseen)).status_code == 200


def damaged(server: Running, folder: Path, count: int, *, bombs: bool) -> None:
    """Ask about so many mutated media; none may be an error of ours, or leave anything behind."""
    files_before = len(os.listdir("/proc/self/fd"))
    statuses: dict[int, int] = {}
    with httpx.Client(base_url=server.url, timeout=120) as http:
        for kind, url in mutated(folder, count, seed=11, bombs=bombs):
            asked = {"messages": about(url), "max_tokens": 1}
            if kind == "image":
                part = {"type": "image_url", "image_url": {"url": url}}
                asked["messages"] = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
            answer = http.post(CHAT, json=asked)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code in (200, 400), answer.text
        assert statuses[400] > count // 10, statuses
        assert http.get("/health").status_code == 200
    assert server.rests_within(2)
    assert abs(len(os.listdir("/proc/self/fd")) - files_before) < 8
    for decoder in server.desk.media.decoders:
        assert decoder.child is None or Path(f"/proc/{decoder.child}").exists()


@pytest.mark.slow
def test_damaged_media_are_refused_one_by_one(server: Running, tmp_path: Path) -> None:
    damaged(server, tmp_path, 12, bombs=False)


@pytest.mark.slow
def test_two_thousand_damaged_media_cost_nothing_but_their_refusal(
    load: Callable[[], VideoAssistant], tmp_path: Path
) -> None:
    with serving(load(), limits=replace(MEDIUM, frames=3000), decoders=2) as running:
        damaged(running, tmp_path, 2000, bombs=True)
