"""The made-up load, and the least that its arithmetic must cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava_next_video.engine import Engine, EngineSettings
from llava_next_video.engine.bench import Workload, bench, prompts
from llava_next_video.engine.roofline import Machine, Work, measured
from llava_next_video.errors import CapacityError, ConfigError

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 22, token_budget=64, max_requests=16)

MACHINE = Machine(multiplications_per_s=1e12, bytes_per_s=1e12)


@pytest.fixture
def engine(model: Any) -> Engine:
    return Engine.from_model(model, SETTINGS)


def test_hits_are_those_that_the_load_allows(engine: Engine) -> None:
    load = Workload(videos=2, questions=3, frames=10, prompt_tokens=8, new_tokens=5)
    heard: list[int] = []
    figures = bench(engine, load, machine=MACHINE, told=heard.append)
    assert figures.requests == heard[-1] == 6
    assert figures.video_hits == pytest.approx(4 / 6)
    # 10 frames of 4 tokens behind 8 words are 3 pages of 16; 4 of 6 prompts of 56 tokens find them.
    assert figures.prefix_hits == pytest.approx(4 * 48 / (6 * 56))
    assert figures.answer_tokens_per_s == pytest.approx(6 * 5 / figures.wall_s)
    assert 0 < figures.first_token.p50_s <= figures.first_token.p99_s <= figures.wall_s
    assert 0 < figures.each_token.p50_s <= figures.each_token.p99_s
    assert 0 < figures.roofline < 1
    work = Work.of(engine.decoder, engine.words, engine.encoder.vision)
    # Of each answer all tokens but the last are computed too; two clips of 10 frames go through the tower.
    done = work.multiplications(frames=20, tokens=6 * 56 - 4 * 48 + 6 * 4, answer_tokens=6 * 5)
    assert figures.multiplications_per_s * figures.busy_s == pytest.approx(done)
    assert figures.busy_s < figures.wall_s
    assert not engine.busy


def test_waiting_counts_from_the_moment_a_request_was_due(engine: Engine) -> None:
    load = Workload(videos=1, questions=4, frames=1, prompt_tokens=4, new_tokens=2, per_second=40.0)
    moments = load.arrivals_s()
    assert moments[0] == 0.0
    assert moments == sorted(moments)
    assert bench(engine, load, machine=MACHINE).wall_s >= moments[-1]


def test_requests_arrive_as_often_as_asked() -> None:
    moments = Workload(videos=100, questions=100, per_second=50.0).arrivals_s()
    assert moments[-1] / len(moments) == pytest.approx(1 / 50, rel=0.05)


def test_the_same_seed_asks_the_same(engine: Engine) -> None:
    first, again, other = (prompts(engine, Workload(videos=2, seed=seed)) for seed in (1, 1, 2))
    assert [one.ids for one in first] == [one.ids for one in again] != [one.ids for one in other]
    assert first[0].media[0].key not in [one.media[0].key for one in other]


def test_the_work_of_a_network_is_the_size_of_its_matrices(engine: Engine) -> None:
    work = Work.of(engine.decoder, engine.words, engine.encoder.vision)
    # Two layers of: 64 -> 64 + 32 + 32, 64 -> 64, 64 -> 2 x 96, 96 -> 64; then 64 -> 320.
    layer = 64 * 128 + 64 * 64 + 64 * 192 + 96 * 64
    assert work.by_token == 2 * layer
    assert work.by_answer_token == 64 * 320
    assert work.weight_bytes == 4 * (2 * layer + 64 * 320)
    # 17 patches through two of three layers of 4 x 32 x 32 and 2 x 32 x 64; 4 pooled tokens projected.
    assert work.by_frame == 17 * 2 * (4 * 32 * 32 + 2 * 32 * 64) + 4 * (32 * 64 + 64 * 64)


@pytest.mark.slow
def test_the_machine_is_measured() -> None:
    machine = measured(torch.float32, "none", torch.device("cpu"))
    assert isinstance(machine, Machine)
    assert machine.multiplications_per_s > 1e8
    assert machine.bytes_per_s > 1e8


@pytest.mark.parametrize(
    ("setting", "sentence"), [({"videos": 0}, "videos is 0"), ({"per_second": -1.0}, "arrival rate is -1")]
)
def test_an_impossible_load_is_refused(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Workload(**setting)


def test_a_load_that_does_not_fit_is_refused_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(CapacityError, match="1024 fit the context"):
        bench(engine, Workload(frames=300), machine=MACHINE)
