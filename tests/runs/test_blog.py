"""The blog's table at toy scale: every part runs, judges by the world's truth, and its tables are current."""

import importlib
import json
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlavaNextVideoForConditionalGeneration

import llava_next_video
from llava_next_video.world import caption, random_scene

RUNS = Path(__file__).parents[2] / "runs"
CHECKPOINT = Path(llava_next_video.__file__).parent / "checkpoint"


@pytest.fixture(scope="module")
def blog() -> Iterator[ModuleType]:
    """The run's modules, with the shipped checkpoint's words: training them takes half a minute."""
    before = set(sys.modules)
    paths = [str(RUNS / "blog"), str(RUNS / "tiny")]
    sys.path[:0] = paths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("text"), "make_tokenizer", _tokenizer)
        yield importlib.import_module("run")
    for path in paths:
        sys.path.remove(path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(RUNS)):
            del sys.modules[name]


def _tokenizer() -> object:
    return AutoTokenizer.from_pretrained(CHECKPOINT)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Two steps of everything, from the shipped checkpoint."""
    network = LlavaNextVideoForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32)
    torch.save(dict(network.named_parameters()), tmp_path / "seed0.pt")
    words = "--seeds 1 --batch 1 --workers 0 --examine 3 --steps 2 --rounds 1 --deadline 1000"
    return ["run.py", "--start", str(tmp_path), "--out", str(tmp_path / "out"), *words.split()]


@contextmanager
def _settings_kept() -> Iterator[None]:
    """A part has a process of its own elsewhere, whose settings other tests here must not inherit."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        signal.signal(signal.SIGTERM, handler)


def _ran(blog: ModuleType, part: str, options: list[str], patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures that one part leaves."""
    patch.setattr(sys, "argv", [*options, "--part", part, "--begun", str(time.time())])
    with _settings_kept():
        blog.main()
    return json.loads((Path(options[4]) / f"{part}.json").read_text())


def test_preferences_are_learnt_from_what_the_judge_tells_apart(
    blog: ModuleType, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The shipped checkpoint is sure of itself: only warm does it say what is wrong.
    monkeypatch.setattr(importlib.import_module("prefer"), "TEMPERATURE", 1.6)
    monkeypatch.setattr(importlib.import_module("prefer"), "SAMPLES", 3)
    found = _ran(blog, "preferences", [*options, "--batch", "2"], monkeypatch)
    [careless, preferences] = found["log"]
    assert (careless["steps"], preferences["steps"]) == (2, 2)
    [one] = found["rounds"]
    # Of each clip at most one pair; true facts are told or missing.
    assert 1 <= one["pairs"][0] <= one["clips"] == 2
    assert one["right"][0] + one["missing"][0] == pytest.approx(100, abs=0.02)


@pytest.mark.slow
def test_every_part_leaves_its_figures(
    blog: ModuleType, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    longer, ropes = importlib.import_module("longer"), importlib.import_module("ropes")
    monkeypatch.setattr(longer, "READ_FRAMES", (4, 32))
    few = {4: [None], 32: [None, ropes.least(32, "linear"), ropes.automatic(32)]}
    monkeypatch.setattr(longer, "tried", few.__getitem__)
    found = {part: _ran(blog, part, options, monkeypatch) for part in blog.BEGIN}
    assert {log["steps"] for part in found.values() for log in part["log"]} <= {0, 2}
    assert [log["stage"] for log in found["clips-joint"]["log"]] == ["separate", "mixed"]
    read = [(row["kind"], row["frames"], row["rope"]) for row in found["lengths"]["rows"]]
    # 580 tokens of 324 are 1.79 times, rounded up to halves
    ways = [(32, "none"), (32, "linear 2"), (32, "yarn 2"), (4, "none")]
    assert sorted(read) == sorted((kind, *way) for kind in ("plain", "stretched") for way in ways)
    learnt = Path(options[4]) / "lengths"
    monkeypatch.setattr(longer, "READ_FRAMES", (4,))
    again = _ran(blog, "lengths", [*options, "--learnt", str(learnt)], monkeypatch)
    assert again["log"] == found["lengths"]["log"]
    assert [(row["kind"], row["frames"]) for row in again["rows"]] == [("plain", 4), ("stretched", 4)]
    report = importlib.import_module("report")
    run = Path(options[4]) / "results.json"
    run.write_text(json.dumps(found | {"settings": {"device": "cpu", "batch": 1}}))
    found = report.gathered([run])
    shown = report.tables(found)
    assert all(f"### ({letter})" in shown for letter in "abcd")
    assert {"clips.svg", "frames-plain-all.svg", "frames-stretched-motion.svg"} <= set(report.plots(found))


def test_saved_weights_go_back_into_their_network_and_no_other(blog: ModuleType) -> None:
    make, networks = importlib.import_module("network").make_network, importlib.import_module("networks")
    first, second = (
        networks.Networks([make(_tokenizer(), seed=seed) for seed in seeds]) for seeds in ((0, 1), (2, 3))
    )
    saved, before = first.states(torch.float32), second.states(torch.float32)
    second.put(1, saved[0])
    after = second.states(torch.float32)
    assert all(after[1][name].equal(weight) for name, weight in saved[0].items())
    assert all(after[0][name].equal(weight) for name, weight in before[0].items())


@pytest.mark.slow
def test_the_shipped_checkpoint_speaks_the_truth_word_by_word(blog: ModuleType, options: list[str]) -> None:
    stack_of, prefer, speaking = (importlib.import_module(name) for name in ("stack", "prefer", "speak"))
    scenes, pool, careless = (importlib.import_module(name) for name in ("scenes", "pool", "careless"))
    setting = stack_of.Setting(
        device="cpu", start=Path(options[2]), out=Path(options[4]), seeds=1, batch=1, workers=0, examine=1,
        begun=0.0, deadline=1.0, steps=1, video_steps=1, rounds=1,
    )  # fmt: skip
    stack = stack_of.Stack(setting, setting.start)
    mix = scenes.Mix(things=(0, 1, 0, 0), choose=careless.prompted)
    table = scenes.rows(random.Random(0), 6, mix, stack.words, stack_of.ROOM)
    rows = pool.to_device(table, stack.device)
    [said] = speaking.speak(stack, rows, speaking.Views.of(stack, rows, 6))
    [truths] = prefer._truths(stack, rows)
    # Its exact captions of one thing are 99.2 per cent of real files (runs/tiny/README.md).
    assert sum(one == truth for [one], truth in zip(said, truths, strict=True)) >= 5


def test_carelessness_leaves_out_and_mistakes_as_often_as_it_says(blog: ModuleType) -> None:
    careless, marks_of = importlib.import_module("careless"), importlib.import_module("marks")
    rng, marks = random.Random(0), []
    for _ in range(2000):
        scene = random_scene(rng, things=1)
        marks.append(marks_of.caption_marks(careless.careless_caption(scene, rng), caption(scene)))
    short = sum(mark["words"] <= 3 for mark in marks) / len(marks)
    assert short == pytest.approx(careless.SHORT, abs=0.04)
    # A wrong doing shows in long captions alone: two of three kinds of mistakes, and a third of those.
    wrong = sum(mark["wrong"] > 0 for mark in marks) / len(marks)
    assert wrong == pytest.approx(careless.WRONG * (2 + 1 - careless.SHORT) / 3, abs=0.03)


def test_the_tables_of_the_readme_are_those_of_the_results(
    blog: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["report.py", "--check"])
    importlib.import_module("report").main()
