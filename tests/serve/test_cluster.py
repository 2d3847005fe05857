"""Replicas on a Ray cluster of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.serve.conftest import data_url

from llava_next_video.errors import ConfigError
from llava_next_video.serve.cluster import read_cluster

PROGRAM = """
import json, socket, sys, urllib.request
import ray
from llava_next_video.errors import ConfigError
from llava_next_video.serve.cluster import start
from llava_next_video.serve.settings import ServeSettings

port, url = int(sys.argv[1]), sys.stdin.read()
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
with socket.create_server(("127.0.0.1", 0)) as other:
    try:
        start(None, ServeSettings(), replicas=1, host="127.0.0.1", port=other.getsockname()[1], load={})
    except ConfigError as error:
        assert "or it is taken" in str(error), error
    else:
        raise AssertionError("a taken port was served")
stop = start(None, ServeSettings(decoders=1), replicas=2, host="127.0.0.1", port=port, load={}, cpus=0.5)

def ask(**more):
    part = {"type": "video_url", "video_url": {"url": url}}
    body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 4, **more}
    head = {"Content-Type": "application/json"}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), head
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.read().decode()

texts = {json.loads(ask())["choices"][0]["message"]["content"] for _ in range(6)}
assert len(texts) == 1 and texts.pop(), texts
assert ask(stream=True).endswith("data: [DONE]\\n\\n")
stop()
ray.shutdown()
print("answered")
"""


def test_the_number_of_replicas_is_read() -> None:
    assert read_cluster("replicas=3") == 3
    for wrong in ("3", "replicas=0", "replicas=many", "nodes=3"):
        with pytest.raises(ConfigError, match="expected replicas=N"):
            read_cluster(wrong)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # two clusters at once starve each other on two cores
def test_two_replicas_answer_behind_one_address(clip: Path) -> None:
    pytest.importorskip("ray.serve", exc_type=ImportError)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(port)],
        input=data_url(clip), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("answered"), done.stdout[-3000:] + done.stderr[-6000:]
