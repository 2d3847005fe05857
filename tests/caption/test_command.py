"""The command's refusals are one sentence, come before a model is loaded, and lose nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.caption.conftest import plain_clip, rows_of
from tests.caption.script import Script

from llava_next_video.cli import run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `caption`; gives exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llava-next-video", "caption", *map(str, words)])
        code = run()
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", "--output", "out"], "nowhere: no such file or folder"),
        (["empty", "--output", "out"], "no videos found in empty"),
        (["list.csv", "--output", "out", "--prompt", "{title}"], "list.csv:2: the prompt asks for {title}"),
        (["list.csv", "--output", "out", "--shard", "3/2"], "--shard 3/2: expected i/n with i from 1 to n"),
        (["list.csv", "--output", "out", "--workers", 0], "--workers 0 was given; expected 1 or more"),
        (
            ["list.csv", "--output", "out", "--dedupe", "some"],
            "unknown --dedupe 'some'; known: off, exact, near",
        ),
        (["list.csv", "--output", "out", "--prompt", " "], "the prompt is empty"),
        (["list.csv", "--output", "out", "--prompt", "a", "--prompt-file", "b"], "both given; keep one"),
        (["list.csv", "--output", "out", "--server", "x", "--quantize", "int8"], "the server's business"),
        (
            ["list.csv", "--output", "out", "--server", "x", "--model", "m", "--send", "mail"],
            "unknown --send 'mail'",
        ),
        (
            ["list.csv", "--output", "out", "--server", "x", "--send", "video", "--near-keys"],
            "--near-keys is for frames that are chosen here",
        ),
        (
            ["list.csv", "--output", "out", "--ray", "banana"],
            "--ray banana: that is no address; name a cluster",
        ),
        (
            ["list.csv", "--output", "out", "--ray", "somewhere:6379x"],
            "start one on this machine with --ray local",
        ),
        (["own.csv", "--output", "list.csv/out", "--prompt", "Why?"], "list.csv/out: Not a directory"),
        (["list.csv", "--output", "list.csv/out"], "list.csv/out: Not a directory"),
        (["twice.csv", "--output", "out"], "twice.csv:3: the id '1' stands for"),
        (["broken.jsonl", "--output", "out"], "broken.jsonl:2: Expecting property name"),
    ],
)
def test_a_mistake_is_one_sentence(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("id,path\n1,a.mp4\n")
    (tmp_path / "own.csv").write_text("id,path,prompt\n1,a.mp4,\n2,b.mp4,What runs?\n")
    (tmp_path / "twice.csv").write_text("id,path\n1,a.mp4\n1,b.mp4\n")
    (tmp_path / "broken.jsonl").write_text('{"path": "a.mp4"}\n{\n')
    code, out, err = command(*words)
    *before, sentence = err.splitlines()
    assert (code, out) == (1, "")
    assert told in sentence
    both = "1 of 2 videos have a prompt of their own (the column 'prompt'); --prompt is for the others"
    if words[0] == "own.csv":
        assert both == before.pop(0)
    assert all(line.startswith("answering with the tiny checkpoint") for line in before)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "auto"])
def test_a_cluster_that_is_not_there_is_one_sentence_and_leaves_no_folder(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    pytest.importorskip("ray.data", exc_type=ImportError)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where a cluster of this machine would be found
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    clip = plain_clip(tmp_path / "a.mp4", (200, 20, 20))
    code, out, err = command(clip, "--output", tmp_path / "out", "--ray", address)
    assert (code, out) == (1, "")
    reason = {"auto": "no cluster runs here", "127.0.0.1:9": "no cluster answers there ("}[address]
    assert f"--ray {address}: {reason}" in err.splitlines()[-1]
    assert "name a cluster with --ray host:port, or start one on this machine with --ray local" in err
    assert not (tmp_path / "out").exists()


def test_a_key_in_the_environment_opens_a_server_and_a_run_without_any_caption_fails(
    command, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.key = "secret"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("LNV_API_KEY", "secret")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("no clip")
    words = [tmp_path / "videos", "--output", tmp_path / "out", "--server", script.url, "--no-report"]
    code, out, err = command(*words, "--workers", 1)
    assert (code, out) == (1, "")
    told = (
        f"{tmp_path / 'out'}: no video has a caption; the column 'error' says why, --retry-errors tries again"
    )
    assert err.splitlines()[-1].endswith(told)
    assert [row["caption"] for row in rows_of(tmp_path / "out")] == [None]
    plain_clip(tmp_path / "videos" / "b.mp4", (200, 20, 20))
    code, out, err = command(*words, "--workers", 1)
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")


@pytest.mark.slow
def test_captions_of_the_tiny_checkpoint_and_a_line_of_figures(
    command, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    (tmp_path / "videos").mkdir()
    plain_clip(tmp_path / "videos" / "a.mp4", (200, 20, 20))
    words = [tmp_path / "videos", "--output", tmp_path / "out", "--model", tiny_checkpoint, "--max-tokens", 4]
    code, out, err = command(*words, "--frames", 2)
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    assert json.loads(err.splitlines()[-2])["captioned"] == 1
    assert err.splitlines()[-1].startswith("1,000,000 videos like these would take this machine")
    (row,) = rows_of(tmp_path / "out")
    assert (row["completion_tokens"], row["visual_tokens"]) == (
        4,
        2 * 4,
    )
    assert (row["finish_reason"], row["flags"][-1]) == ("length", "truncated")
    code, _, err = command(*words, "--frames", 4)
    assert code == 1
    assert "captions made with --frames 2, not 4; name another folder" in err.splitlines()[-1]
