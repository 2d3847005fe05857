"""A network that is shared with other processes answers as one process does, and ends with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine.conftest import clip, picture, prompt, tiny, words
from tests.engine.test_rope import SCALINGS, question
from tests.engine.test_rope import ours as scaled_network

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.collective import Collective, PartedError
from llava_next_video.engine.followers import Followers
from llava_next_video.errors import CheckpointError, LlavaNextVideoError
from llava_next_video.inputs import ModelInputs
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.size import Size

pytestmark = pytest.mark.slow

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=8)
LONGEST_S = 120.0
ANSWER = SamplingOptions(max_new_tokens=36, ignore_eos=True)


def questions() -> list[ModelInputs]:
    """About the same clip, which fills shared pages; about another one behind a picture; a long text."""
    same = [prompt(words(1, 20), clip(1, 12), words(last, 9)) for last in range(2, 8)]
    other = prompt(words(3, 5), picture(2, Size(90, 40)), words(5, 4), clip(3, 5), words(6, 2))
    return [*same, other, prompt(words(4, 150))]


def scaled() -> list[ModelInputs]:
    """Each under a scaling of its own, more than there is room for at once."""
    return [question(rope, last=last) for last, rope in enumerate(SCALINGS)]


@pytest.mark.parametrize(
    ("make", "asked", "more"),
    [
        (lambda: tiny("llama"), questions, {"kv_bytes": 1 << 18}),  # so little that requests are sent back
        (lambda: tiny("mistral", text={"sliding_window": 40}), questions, {"ahead": True}),
        (lambda: scaled_network("qwen2"), scaled, {}),
    ],
    ids=["llama with few pages", "mistral running ahead", "qwen2 with positions scaled by request"],
)
def test_two_processes_give_the_ids_of_one(tmp_path: Path, make: Any, asked: Any, more: Any) -> None:
    make().save_pretrained(tmp_path)
    settings = replace(SETTINGS, **more)
    alone = Engine.from_folder(tmp_path, settings)
    wanted = [answer.ids for answer in alone.generate(asked(), ANSWER)]
    half = replace(settings, tensor_parallel=2, kv_bytes=settings.kv_bytes // 2)
    shared = Engine.from_folder(tmp_path, half)
    assert shared.pages.count == alone.pages.count  # a page of half the heads takes half the bytes
    assert [answer.ids for answer in shared.generate(asked(), ANSWER)] == wanted
    assert len(set(wanted)) > len(wanted) // 2
    assert (shared.load().preemptions > 0) is ("kv_bytes" in more)
    assert shared.load().cached_tokens == alone.load().cached_tokens > 0 or asked is scaled
    shared.check()
    shared.close()


@pytest.mark.parametrize(("quantize", "dtype"), [("int8", "auto"), ("none", "bfloat16")])
def test_few_bits_choose_nearly_the_same_in_two_processes(tmp_path: Path, quantize: Any, dtype: Any) -> None:
    tiny().save_pretrained(tmp_path)
    settings = replace(SETTINGS, quantize=quantize, dtype=dtype)
    likeliest = SamplingOptions(max_new_tokens=1, ignore_eos=True, logprobs=5)
    alone, shared = (
        Engine.from_folder(tmp_path, one) for one in (settings, replace(settings, tensor_parallel=2))
    )
    for one, other in zip(
        alone.generate(questions(), likeliest), shared.generate(questions(), likeliest), strict=True
    ):
        top, other_top = (dict(answer.last.logprobs[0].top) for answer in (one, other))
        both = top.keys() & other_top.keys()
        assert len(both) >= 3
        assert all(abs(top[id] - other_top[id]) < 1.0 for id in both), (top, other_top)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    tiny().save_pretrained(made)
    return made


def led(folder: Path, fate: str) -> subprocess.Popen[str]:
    """A leader to which something will happen; one that hangs is killed, and then says nothing more."""
    command = [sys.executable, str(Path(__file__).with_name("leader.py")), str(folder), fate]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    end = threading.Timer(LONGEST_S, leader.kill)
    end.daemon = True
    end.start()
    return leader


def heard(leader: subprocess.Popen[str]) -> Any:
    assert leader.stdout is not None
    return json.loads(leader.stdout.readline())


def runs(process: int) -> bool:
    """Whether a process has not ended; one that nobody waits for stays listed."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def ends_soon(process: int) -> bool:
    deadline_s = time.monotonic() + 10
    while runs(process) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return not runs(process)


def test_a_follower_that_dies_ends_the_step_with_one_error(folder: Path) -> None:
    with led(folder, "follower dies") as leader:
        follower = heard(leader)["follower"]
        told = heard(leader)
        leader.kill()
    sentence = "follower 1 ended (exit status -9); what was under way is lost: load the network again"
    assert told["errors"] == [sentence] * 2
    assert told["left"] == []
    assert max(told["waits_s"]) < 5
    assert ends_soon(follower)


def test_no_follower_outlives_a_leader_that_is_killed_at_work(folder: Path) -> None:
    with led(folder, "works") as leader:
        follower = heard(leader)["follower"]
        assert runs(follower)
        leader.kill()
    assert ends_soon(follower)


def test_a_stopped_follower_ends_when_it_goes_on_without_a_leader(folder: Path) -> None:
    with led(folder, "works") as leader:
        follower = heard(leader)["follower"]
        os.kill(follower, signal.SIGSTOP)
        leader.kill()
    assert runs(follower)
    os.kill(follower, signal.SIGCONT)
    assert ends_soon(follower)


@pytest.mark.parametrize("fate", ["forgets", "ends"])
def test_followers_end_with_their_leader(folder: Path, fate: str) -> None:
    with led(folder, fate) as leader:
        follower = heard(leader)["follower"]
        if fate != "ends":
            assert heard(leader)["left"] == []
            leader.kill()
        else:
            assert leader.wait(timeout=20) == 0
    assert ends_soon(follower)


def test_ctrl_c_waits_for_the_end_of_a_step_and_close_for_that_of_the_follower(folder: Path) -> None:
    with led(folder, "interrupted") as leader:
        follower = heard(leader)["follower"]
        told, closed = heard(leader), heard(leader)
        leader.kill()
    alone = Engine.from_folder(folder, replace(SETTINGS, max_requests=4))
    asked = ModelInputs(ids=tuple(range(5, 40)), media=())
    wanted = alone.generate([asked], SamplingOptions(max_new_tokens=12))[0]
    assert told["ids"] == list(wanted.ids)
    assert told["left"] == [follower]
    assert closed["left"] == []


def test_what_a_follower_cannot_load_reaches_the_caller_as_a_sentence(folder: Path, tmp_path: Path) -> None:
    config = LlavaNextVideoConfig.from_pretrained(folder)
    missing, shared = tmp_path / "adapter", replace(SETTINGS, tensor_parallel=2)
    with (
        pytest.raises(CheckpointError, match=r"^follower 1: .*adapter is no folder here"),
        Followers.starting(folder, config, missing, shared) as followers,
    ):
        followers.loaded()
    with pytest.raises(LlavaNextVideoError, match="the engine was closed"):
        followers.step([], torch.zeros(0, 64)).__enter__()


def test_a_process_that_the_leader_forked_ends_nobody(folder: Path) -> None:
    with led(folder, "forks") as leader:
        follower = heard(leader)["follower"]
        told = heard(leader)
        leader.kill()
    assert told == {"child": 0, "left": [follower], "tokens": 12}


def test_the_reason_why_a_sum_failed_reaches_the_caller(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava_next_video.engine.followers._END_S", 0.2)
    engine = Engine.from_folder(folder, replace(SETTINGS, tensor_parallel=2))

    def refuse(tensor: torch.Tensor) -> None:
        raise PartedError("no space left\non /dev/shm")

    monkeypatch.setattr(engine._followers._collective, "hand_out", refuse)
    engine.add(ModelInputs(ids=(5, 6, 7), media=()), ANSWER)
    for _ in range(2):
        with pytest.raises(LlavaNextVideoError, match="sums failed: no space left on /dev/shm; what was"):
            engine.step()


def test_a_file_of_pythons_names_in_the_working_directory_is_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise RuntimeError('this is not Python')\n")
    monkeypatch.chdir(tmp_path)
    shared = Engine.from_folder(folder, replace(SETTINGS, tensor_parallel=2))
    assert len(shared.generate([prompt(words(1, 5))], ANSWER)[0].ids) == 36
    shared.close()


def test_who_has_left_adds_up_nothing_more() -> None:
    collective = Collective(rank=0, count=2, device=torch.device("cpu"))
    collective.add_up(torch.ones(1))  # before the meeting its sums are its own
    collective.leave()
    with pytest.raises(PartedError, match="left the others"):
        collective.add_up(torch.ones(1))
