"""Long clips through the front door: stretched, slow-fast, with newlines and times; engine as reference."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llava_next_video import VideoAssistant
from llava_next_video.assistant import Answer, Planner, Reader
from llava_next_video.engine import Engine
from llava_next_video.errors import CapacityError, ConfigError, PromptError
from llava_next_video.long_video import ClipLayout, RopeScaling, SlowFast
from llava_next_video.media import Clip, Limits, Picture, read_clip, read_image
from llava_next_video.messages import Image, Text, Turn, Video, user
from llava_next_video.processing.times import time_instruction, with_times

SLOW, FAST = 4, 1  # 56 / 14 = 4 patches a side, pooled by 2 and by 4
TRAINED = 128


@pytest.fixture(scope="module")
def short(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained on 128 positions."""
    folder = tmp_path_factory.mktemp("short") / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = TRAINED
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def engine(short: Path) -> VideoAssistant:
    return VideoAssistant.load(short, dtype="float32")


@pytest.fixture(scope="module")
def reference(short: Path) -> VideoAssistant:
    return VideoAssistant.load(short, reference=True)


def film(frames: int) -> np.ndarray:
    """Frames of noise."""
    return np.random.default_rng(0).integers(0, 256, (frames, 56, 56, 3), np.uint8)


@pytest.mark.parametrize(
    "wishes",
    [
        {"frames": 24, "rope": "auto"},
        {"frames": 24, "rope": 3},
        {"frames": 24, "rope": RopeScaling(kind="dynamic")},
        {"frames": 24, "rope": RopeScaling(kind="yarn", factor=2.5)},
        {"frames": 12, "layout": ClipLayout(slow_fast=SlowFast(every=4), newline="frame")},
        {
            "frames": 20,
            "rope": "auto",
            "layout": ClipLayout(slow_fast=SlowFast(every=2, stride=1), newline="grid"),
            "time_instruction": True,
        },
    ],
    ids=str,
)
def test_the_engine_says_of_a_long_clip_what_the_reference_says(
    engine: VideoAssistant, reference: VideoAssistant, square_clip: Path, wishes: dict[str, Any]
) -> None:
    fast = engine.ask(square_clip, "What happens?", max_new_tokens=12, **wishes)
    plain = reference.ask(square_clip, "What happens?", max_new_tokens=12, **wishes)
    assert (fast.text, fast.usage.prompt_tokens) == (plain.text, plain.usage.prompt_tokens)


def test_a_clip_beyond_the_context_is_refused_unless_it_is_stretched(
    engine: VideoAssistant, reference: VideoAssistant
) -> None:
    clip = film(40)  # 160 visual tokens
    for assistant in (engine, reference):
        with pytest.raises(CapacityError, match=r"128 fit the context; .* larger rope factor"):
            assistant.ask(clip, "?", frames=40, max_new_tokens=4)
        answer = assistant.ask(clip, "?", frames=40, max_new_tokens=4, rope="auto")
        assert answer.usage.visual_tokens == 160
        with pytest.raises(CapacityError, match="160 fit the context"):
            assistant.ask(clip, "?", frames=40, max_new_tokens=4, rope=1.25)


def test_the_same_clip_under_another_factor_shares_no_page(engine: VideoAssistant) -> None:
    cached = [
        engine.ask(film(30), "?", frames=30, max_new_tokens=2, rope=rope).usage.cached_tokens
        for rope in (1.5, 2, RopeScaling(kind="yarn", factor=2.0), RopeScaling(kind="dynamic", factor=2.0), 2)
    ]
    assert cached[:4] == [0, 0, 0, 0]
    assert cached[4] > 100


def test_each_of_many_conversations_may_be_long(engine: VideoAssistant, square_clip: Path) -> None:
    wishes: dict[str, Any] = {"frames": 12, "rope": 2, "layout": ClipLayout(slow_fast=SlowFast(every=4))}
    parts = [{"type": "video", "video": str(square_clip)}, {"type": "text", "text": "What happens?"}]
    conversation = [{"role": "user", "content": parts}]
    (each,) = engine.chat_each([conversation], max_new_tokens=4, time_instruction=True, **wishes)
    one = engine.chat(conversation, max_new_tokens=4, time_instruction=True, **wishes)
    assert isinstance(each, Answer)
    assert (each.text, each.usage.prompt_tokens) == (one.text, one.usage.prompt_tokens)
    assert each.usage.visual_tokens == 3 * SLOW + 9 * FAST


def test_slow_and_fast_frames_are_counted_and_a_budget_holds(engine: VideoAssistant) -> None:
    wishes: dict[str, Any] = {"max_new_tokens": 1, "layout": ClipLayout(slow_fast=SlowFast(every=5))}
    answer = engine.ask(film(20), "?", frames=20, **wishes)
    assert answer.usage.visual_tokens == 4 * SLOW + 16 * FAST
    fewer = engine.ask(film(20), "?", frames=20, max_visual_tokens=20, **wishes)
    (seen,) = fewer.seen
    assert isinstance(seen, Clip)
    # 13 frames would need 3 * 4 + 10 = 22, 11 need 3 * 4 + 8 = 20
    assert (len(seen.frames), fewer.usage.visual_tokens) == (11, 20)


@pytest.fixture(scope="module")
def planner(short: Path) -> Planner:
    return Planner.load(short)


def test_a_plan_tells_of_the_layout_and_the_factor_that_was_chosen(planner: Planner) -> None:
    def plan(frames: int, **wishes: Any) -> Any:
        reader = Reader(processor=planner.processor, limits=Limits(), frames=frames, **wishes)
        return planner.plan(reader.asked(film(200), "?"), new_tokens=20)

    plain = plan(100)
    words = plain.prompt_tokens - 400
    assert (plain.fits, plain.rope_kind, plain.rope_factor) == (False, "default", 1.0)
    slow = ClipLayout(slow_fast=SlowFast(every=10))
    few = plan(100, layout=slow)
    assert few.visual_tokens == 10 * SLOW + 90 * FAST
    room = TRAINED - 20 - words
    most = few.frames_that_fit
    assert -(-most // 10) * 3 + most <= room < -(-(most + 1) // 10) * 3 + most + 1
    for kind in ("linear", "dynamic", "yarn"):
        wide = plan(100, layout=slow, rope=RopeScaling(kind=kind))
        assert wide.fits
        # 130 visual, 20 to come, and less than 42 of words
        assert (wide.rope_kind, wide.rope_factor, wide.context) == (kind, 1.5, 192)
        assert wide.rope_factor_needed == 1.5
    halves = -(-2 * (400 + words + 20) // TRAINED)
    assert plan(100, rope=RopeScaling(factor=2.0)).rope_factor_needed == halves / 2


def test_the_times_of_the_frames_are_told_in_the_originals_words(square_clip: Path) -> None:
    clip = read_clip(square_clip)
    # 24 frames at 12 a second, of which every third is looked at
    assert time_instruction(clip) == (
        "The video lasts for 2.00 seconds, and 8 frames are uniformly sampled from it. These frames are "
        "located at 0.00s,0.25s,0.50s,0.75s,1.00s,1.25s,1.50s,1.75s.Please answer the following questions "
        "related to this video."
    )


def test_times_stand_between_the_clip_and_the_question(square_clip: Path) -> None:
    clip = read_clip(square_clip)
    told = f"{time_instruction(clip)}\n"
    turns = (user("Why?", [Video()]), Turn(role="assistant", parts=(Text(text="So."),)), user("And?"))
    first, *others = with_times(turns, [clip])
    assert first.parts == (Video(), Text(text=told), Text(text="Why?"))
    assert tuple(others) == turns[1:]
    (both,) = with_times([user("?", [Video(), Image(), Video()])], [clip, _picture(), clip])
    assert both.text == f"{told}{told}?"


def _picture() -> Picture:
    return read_image(np.zeros((8, 8, 3), np.uint8))


def test_times_are_told_of_the_frames_that_a_budget_leaves(planner: Planner, square_clip: Path) -> None:
    def ids(**wishes: Any) -> tuple[int, ...]:
        reader = Reader(processor=planner.processor, limits=Limits(), time_instruction=True, **wishes)
        return reader.asked(square_clip, "?").inputs.ids

    assert ids(frames=24, max_visual_tokens=16) == ids(frames=4)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"rope": 0.9}, "rope factor 0.9 is below 1"),
        ({"layout": ClipLayout(slow_fast=SlowFast(every=2, stride=3))}, "6 does not divide a frame of 4x4"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    engine: VideoAssistant, square_clip: Path, wishes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        engine.ask(square_clip, "?", **wishes)


def test_frames_without_a_clock_have_no_times_to_tell(square_clip: Path) -> None:
    timeless = replace(read_clip(square_clip), duration_s=None)
    with pytest.raises(PromptError, match="its frames have no times to tell"):
        time_instruction(timeless)


def test_nothing_is_left_behind_after_all_this(engine: VideoAssistant) -> None:
    assert isinstance(engine.network, Engine)
    engine.network.check()
