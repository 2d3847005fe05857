"""Servers that are busy, gone or wrong: what a video is blamed for, and what it is not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.caption.conftest import plain_clip, rows_of
from tests.caption.script import Script

from llava_next_video.caption import DescriberGoneError, Figures, Settings, caption, list_items
from llava_next_video.caption.outcome import Model
from llava_next_video.caption.servers import Send, Servers, server_model
from llava_next_video.caption.wire import Served, served_model
from llava_next_video.media import Sampling

ONE = Settings(workers=1, back_off_s=0.01, attempts=3)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    plain_clip(tmp_path / "videos" / "a.mp4", (20, 20, 20))
    return tmp_path / "videos"


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
    with pytest.raises(
        DescriberGoneError, match="answered 401: no, because; give the server's key with --api"
    ):
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


def test_a_server_that_wants_a_key_says_so_and_takes_it(script: Script) -> None:
    script.key = "secret"
    assert served_model(script.url, "secret").name == "llava"
    with pytest.raises(
        DescriberGoneError,
        match=r"/v1/models: the server answered 401: an API key is needed; give the server's key with "
        "--api-key, or in LNV_API_KEY",
    ):
        served_model(script.url)


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
