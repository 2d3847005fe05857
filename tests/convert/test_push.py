"""Uploads, to a hub on this machine that keeps what it is sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llava_next_video.convert.push import push
from llava_next_video.errors import CheckpointError


class Hub(ThreadingHTTPServer):
    """As much of the hub's HTTP as an upload of small files needs; files are sent inside the commit."""

    files: dict[str, bytes]
    created: list[dict[str, object]]
    refuses: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Door(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer(404, {"error": "not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if self.server.refuses is not None:
            self.answer(self.server.refuses, {"error": "no"})
        elif path == "/api/repos/create":
            asked = json.loads(body)
            self.server.created.append(asked)
            name = f"{asked['organization']}/{asked['name']}"
            self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        elif "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif "/commit/" in path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.server.files[entry["value"]["path"]] = content
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            url = f"{self.server.url}/{name}/commit/abc"
            self.answer(200, {"success": True, "commitUrl": url, "commitOid": "abc", "hookOutput": ""})
        else:
            self.answer(404, {"error": path})

    def answer(self, code: int, values: dict[str, object]) -> None:
        text = json.dumps(values).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Door)
    server.files, server.created = {}, []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_file_arrives_as_it_is(hub: Hub, tiny_checkpoint: Path) -> None:
    page = push(tiny_checkpoint, "me/tiny", private=True, endpoint=hub.url, token="hf_test")
    assert page == f"{hub.url}/me/tiny"
    assert hub.created[0]["visibility"] == "private"
    sent = {
        str(path.relative_to(tiny_checkpoint)): path for path in tiny_checkpoint.rglob("*") if path.is_file()
    }
    assert hub.files.keys() - {".gitattributes"} == sent.keys()
    for name, path in sent.items():
        assert hub.files[name] == path.read_bytes(), name


@pytest.mark.parametrize(
    ("code", "message"), [(401, "wants a token that may write me/tiny"), (403, "the hub refuses me/tiny: ")]
)
def test_what_the_hub_objects_to_is_one_sentence(
    hub: Hub, tiny_checkpoint: Path, code: int, message: str
) -> None:
    hub.refuses = code
    with pytest.raises(CheckpointError, match=message):
        push(tiny_checkpoint, "me/tiny", endpoint=hub.url, token="hf_test")
    assert not hub.files


def test_a_hub_out_of_reach_is_named(hub: Hub, tiny_checkpoint: Path) -> None:
    hub.server_close()
    with pytest.raises(CheckpointError, match="the hub cannot be reached for me/tiny"):
        push(tiny_checkpoint, "me/tiny", endpoint=hub.url, token="hf_test")


def test_what_is_no_checkpoint_or_name_never_leaves_the_machine(
    hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        push(tmp_path, "me/tiny", endpoint=hub.url, token="hf_test")
    with pytest.raises(CheckpointError, match="'tiny' is no name on the hub; expected owner/name"):
        push(tiny_checkpoint, "tiny", endpoint=hub.url, token="hf_test")
    assert not hub.created
