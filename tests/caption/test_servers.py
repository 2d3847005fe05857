"""Servers that are busy, gone or wrong: what a video is blamed for, and what it is not."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.caption.conftest import plain_clip, rows_of

from llava_next_video.caption import DescriberGoneError, Figures, Settings, caption, list_items
from llava_next_video.caption.outcome import Model
from llava_next_video.caption.servers import Send, Servers, server_model
from llava_next_video.caption.wire import Served, served_model
from llava_next_video.media import Sampling

ONE = Settings(workers=1, back_off_s=0.01, attempts=3)


class Script:
    """A server that answers with the statuses of its list, then well; it keeps what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[dict[str, object]] = []
        self.owner = "somebody"
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say(200, {"data": [{"id": "llava", "owned_by": script.owner}]})

            def do_POST(self) -> None:
                script.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status = script.statuses.pop(0) if script.statuses else 200
                if status != 200:
                    self.say(status, {"error": {"message": "no, because"}})
                    return
                answer = {"message": {"content": " A dog. "}, "finish_reason": "stop"}
                usage = {"prompt_tokens": 50, "completion_tokens": 3}
                self.say(200, {"choices": [answer], "usage": usage})

            def say(self, status: int, body: object) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nobody needs to read it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    plain_clip(tmp_path / "videos" / "a.mp4", (20, 20, 20))
    return tmp_path / "videos"


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.close()


def by(*urls: str, send: Send = "images", patience_s: float = 60.0) -> Model:
    def load() -> Servers:
        return Servers(
            urls,
            model="llava",
            send=send,
            sampling=Sampling(frames=3),
            options={"max_new_tokens": 9, "temperature": 0.0, "seed": None},
            at_once=2,
            key="secret",
            patience_s=patience_s,
        )

    return Model(name="llava", identity={"send": send}, load=load)


def run(videos: Path, model: Model) -> tuple[Figures, dict[str, object]]:
    out = videos.parent / "out"
    figures = caption(list_items([str(videos)], "What?"), out, model, ONE, report=False)
    return figures, rows_of(out)[0]


@pytest.mark.parametrize("send", ["video", "frames", "images"])
def test_files_and_frames_arrive_as_data_urls(videos: Path, script: Script, send: Send) -> None:
    _, row = run(videos, by(script.url, send=send))
    assert (row["caption"], row["prompt_tokens"], row["completion_tokens"]) == ("A dog.", 50, 3)
    (body,) = script.bodies
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("llava", 9, 0.0)
    assert "seed" not in body
    *media, words = body["messages"][0]["content"]  # type: ignore[index]
    assert words == {"type": "text", "text": "What?"}
    if send == "images":
        assert [part["type"] for part in media] == ["image_url"] * 3
        assert all(_decoded(part["image_url"]["url"])[:2] == b"\xff\xd8" for part in media)
        return
    (part,) = media
    url = part["video_url"]["url"]
    if send == "video":
        assert _decoded(url) == (videos / "a.mp4").read_bytes()
        assert body["media_io_kwargs"] == {"video": {"num_frames": 3}}
        assert row["frame_times_s"] == []
    else:
        assert url.startswith("data:video/jpeg;base64,")
        assert url.count(",") == 3
        assert len(row["frame_times_s"]) == 3  # type: ignore[arg-type]


def _decoded(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def test_a_busy_server_is_waited_for_and_no_video_is_blamed(videos: Path, script: Script) -> None:
    script.statuses = [429, 429, 429, 429]
    figures, row = run(videos, by(script.url))
    assert (row["error"], row["attempts"], figures.retries) == (None, 1, 0)


@pytest.mark.slow
def test_a_server_that_fails_on_a_video_is_asked_again_a_few_times(videos: Path, script: Script) -> None:
    script.statuses = [500, 500, 500, 500]
    figures, row = run(videos, by(script.url))
    assert (row["error_class"], row["attempts"], figures.retries) == ("HTTPError", 3, 2)
    assert row["error"] == "the server answered 500: no, because"


def test_what_a_server_refuses_is_a_row_with_its_words(videos: Path, script: Script) -> None:
    script.statuses = [400]
    figures, row = run(videos, by(script.url))
    assert (row["error_class"], row["attempts"], figures.retries) == ("RefusedError", 1, 0)
    assert row["error"] == "the server answered 400: no, because"


def test_a_wrong_token_or_model_stops_the_run_before_any_video_is_blamed(
    videos: Path, script: Script
) -> None:
    script.statuses = [401]
    with pytest.raises(DescriberGoneError, match="answered 401: no, because"):
        run(videos, by(script.url))
    assert not list((videos.parent / "out").glob("part-*"))


@pytest.mark.slow
def test_one_server_of_two_is_enough(videos: Path, script: Script) -> None:
    gone = Script()
    gone.close()
    _, row = run(videos, by(gone.url, script.url))
    assert row["caption"] == "A dog."


@pytest.mark.slow
def test_when_no_server_answers_for_long_the_run_stops_and_goes_on_later(videos: Path) -> None:
    gone = Script()
    gone.close()
    with pytest.raises(DescriberGoneError, match=r"no server has answered for 0 s\. What was finished"):
        run(videos, by(gone.url, patience_s=0.0))
    back = Script()
    _, row = run(videos, by(back.url))
    back.close()
    assert row["caption"] == "A dog."


def test_the_servers_own_name_for_its_model_is_asked_for(script: Script) -> None:
    assert served_model(script.url) == served_model(f"{script.url}/v1/")
    assert served_model(script.url) == Served(name="llava", ours=False)
    gone = Script()
    gone.close()
    with pytest.raises(
        DescriberGoneError,
        match=r"no server names its model there \(\[Errno .*start it, or give --model and --send",
    ):
        served_model(gone.url)


@pytest.mark.parametrize(
    ("owner", "asked", "sent"),
    [
        ("llava-next-video", None, "frames"),
        ("vllm", None, "images"),
        ("llava-next-video", "images", "images"),
    ],
)
def test_a_server_of_ours_gets_a_clip_and_others_pictures_unless_told_otherwise(
    script: Script, owner: str, asked: Send | None, sent: Send
) -> None:
    script.owner = owner
    model = server_model(
        [script.url], None, "What?", Sampling(), {}, send=asked, at_once=1, look=False, key=None
    )
    assert (model.name, model.identity["send"]) == ("llava", sent)
