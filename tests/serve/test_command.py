"""`llava-next-video serve` as it is typed: up, asked by curl, stopped."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from llava_next_video.cli import run

GUIDE = Path(__file__).parent.parent.parent / "docs" / "serve.md"


@pytest.mark.slow
def test_the_guides_curl_gets_an_answer_and_the_server_stops_in_order(clip: Path, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    shutil.copy(clip, tmp_path / "clip.mp4")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (snippet,) = re.findall(r"^```sh\n(printf.*?)^```", GUIDE.read_text(), re.M | re.S)
    words = ["serve", "--port", str(port), "--decoders", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "llava_next_video.cli", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        told = subprocess.run(
            ["bash", "-c", snippet.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(told.stdout)["choices"][0]["message"]["content"]
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 0, log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line["path"] == "/v1/chat/completions"] == [200]
    assert f"http://127.0.0.1:{port} serves llava-next-video" in log
    assert "Traceback" not in log
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--frames", "100"], "frames is 100, more than max_frames, 64"),
        (["--allow-media-path", "/nowhere"], "--allow-media-path /nowhere: no such folder"),
        (["--api-key", " "], "an API key is empty"),
        (["--deadline", "0"], "deadline_s is 0"),
        (["--model", "tinny", "--port", "0"], "is no folder here"),
    ],
)
def test_a_server_that_cannot_be_meant_does_not_start(
    flags: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["llava-next-video", "serve", *flags])
    assert run() == 1
    assert says in capsys.readouterr().err
