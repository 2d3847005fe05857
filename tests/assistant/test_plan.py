"""What a question needs is told before a model is loaded; a budget of visual tokens is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_next_video import VideoAssistant
from llava_next_video.assistant import Planner, Reader
from llava_next_video.errors import CapacityError, ConfigError, PromptError
from llava_next_video.media import Clip, Limits, Sampling, read_clip
from llava_next_video.messages import Image as Still
from llava_next_video.messages import Video, user
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.processing.budget import most_frames

A_FRAME = 4  # 56 / 14 = 4 patches a side, pooled by 2


@pytest.fixture(scope="module")
def planner(tiny_checkpoint: Path) -> Planner:
    return Planner.load(tiny_checkpoint)


def reader(processor: LlavaNextVideoProcessor, frames: int = 8, most: int | None = None) -> Reader:
    return Reader(processor=processor, limits=Limits(), frames=frames, max_visual_tokens=most)


def film(frames: int) -> np.ndarray:
    return np.zeros((frames, 32, 32, 3), np.uint8)


def test_a_plan_counts_what_the_network_will_be_given(planner: Planner, square_clip: Path) -> None:
    picture = Image.new("RGB", (80, 60))
    prompt = reader(planner.processor, frames=6).asked([square_clip, picture], "What?")
    plan = planner.plan(prompt, new_tokens=100)
    clip, still = plan.media
    assert (clip.kind, clip.frames, clip.tokens) == ("video", 6, 6 * A_FRAME)
    assert (still.kind, still.frames) == ("image", None)
    assert plan.visual_tokens == clip.tokens + still.tokens
    assert plan.prompt_tokens == len(prompt.inputs.ids)
    assert plan.tokens == plan.prompt_tokens + 100
    assert (plan.fits, plan.rope_factor, plan.rope_factor_needed) == (True, 1.0, 1.0)
    text = planner.config.get_text_config()
    width = text.hidden_size // text.num_attention_heads
    # keys and values, of each layer and head, in two bytes a number
    assert (
        plan.key_value_bytes
        == 2 * text.num_hidden_layers * text.num_key_value_heads * width * 2 * plan.tokens
    )


def test_what_would_fit_fits_and_one_frame_more_does_not(planner: Planner) -> None:
    prompt = reader(planner.processor, frames=2000).asked(film(2000), "?")
    plan = planner.plan(prompt, new_tokens=96)
    assert not plan.fits
    words = plan.prompt_tokens - 2000 * A_FRAME
    assert plan.frames_that_fit == (4096 - 96 - words) // A_FRAME
    assert plan.rope_factor_needed == 2.0  # 8,1xx of 4,096 tokens: 1.98, in halves
    for frames, fits in ((plan.frames_that_fit, True), (plan.frames_that_fit + 1, False)):
        fewer = reader(planner.processor, frames=frames).asked(film(2000), "?")
        assert planner.plan(fewer, new_tokens=96).fits is fits


def test_a_stretched_context_is_planned_with(tiny_checkpoint: Path) -> None:
    planner = Planner.load(tiny_checkpoint, rope_factor=2.5)
    plan = planner.plan(reader(planner.processor, frames=2000).asked(film(2000), "?"), new_tokens=96)
    assert (plan.fits, plan.context, plan.rope_factor) == (True, 10240, 2.5)


def test_a_budget_shows_fewer_frames_of_each_clip(planner: Planner) -> None:
    prompt = reader(planner.processor, frames=8, most=50).asked([film(40), film(3)], "?")
    # 3 frames stay 12 tokens, and (50 - 12) // 4 = 9 frames would fit beside them: all 8
    assert [len(seen.frames) for seen in prompt.seen if isinstance(seen, Clip)] == [8, 3]
    prompt = reader(planner.processor, frames=8, most=30).asked([film(40), film(3)], "?")
    long, short = prompt.seen
    assert isinstance(long, Clip)
    assert isinstance(short, Clip)
    assert (long.indices, short.indices) == ((0, 10, 20, 30), (0, 1, 2))  # (30 - 12) // 4 = 4
    assert long.sampling == Sampling(frames=4)
    assert prompt.inputs.visual_tokens == 7 * A_FRAME


def test_a_budget_holds_in_a_conversation_and_for_pictures(planner: Planner) -> None:
    picture = Image.new("RGB", (80, 60))
    alone = reader(planner.processor).asked(picture, "?").inputs.visual_tokens
    turns = [user("?", [Still(source=picture), Video(source=film(9))])]
    prompt = reader(planner.processor, most=alone + 10).chatted(turns)
    assert prompt.inputs.visual_tokens == alone + 2 * A_FRAME
    with pytest.raises(CapacityError, match=f"max_visual_tokens={alone}; {alone + A_FRAME} would do"):
        reader(planner.processor, most=alone).chatted(turns)
    with pytest.raises(ConfigError, match="max_visual_tokens is 0"):
        reader(planner.processor, most=0)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("a.mp4", "question 3 is 'a.mp4'; expected a pair of media and text such as"),
        (Path("a.mp4"), "question 3 is 'a.mp4'; expected a pair"),
        (
            {"media": "a.mp4", "question": "?"},
            "question 3 is a mapping with media, question; expected a pair",
        ),
        (("a.mp4", "b.mp4", "?"), "question 3 is a tuple of 3; expected a pair"),
        (None, "question 3 is of type NoneType; expected a pair"),
        ((film(3), None), "the question is None; expected text such as 'What moves?'"),
    ],
)
def test_a_question_is_a_pair_of_media_and_text(planner: Planner, pair: object, says: str) -> None:
    with pytest.raises(PromptError) as refusal:
        reader(planner.processor).asked_pair(pair, "question 3")
    assert says in str(refusal.value)


def test_the_assistant_keeps_a_budget(tiny_checkpoint: Path, square_clip: Path) -> None:
    assistant = VideoAssistant.load(tiny_checkpoint)
    answer = assistant.ask(square_clip, "?", frames=8, max_visual_tokens=12, max_new_tokens=1)
    assert answer.usage.visual_tokens == 3 * A_FRAME


def test_a_thinned_clip_shows_frames_of_the_clip(planner: Planner, square_clip: Path) -> None:
    whole = read_clip(square_clip, Sampling(frames=24))
    prompt = reader(planner.processor, frames=24, most=6 * A_FRAME).asked(square_clip, "?")
    (thin,) = prompt.seen
    assert isinstance(thin, Clip)
    assert thin.indices == (0, 4, 8, 12, 16, 20)
    assert (thin.frames == whole.frames[::4]).all()
    assert thin.times_s == whole.times_s[::4]
    by_rate = Sampling(how="fps", per_second=6.0, frames=12)
    spread = Reader(
        processor=planner.processor, limits=Limits(), frames=by_rate, max_visual_tokens=4 * A_FRAME
    ).asked(square_clip, "?")
    # 12 candidates, every other frame; of those the first, the last and what lies evenly between
    assert spread.seen[0].indices == (0, 6, 14, 22)  # type: ignore[union-attr]


def test_most_frames_is_zero_when_not_one_fits(planner: Planner, square_clip: Path) -> None:
    clip = read_clip(square_clip)
    assert most_frames([clip, clip], 2 * A_FRAME - 1, planner.processor) == 0
    assert most_frames([clip, clip], 2 * A_FRAME, planner.processor) == 1
    assert most_frames([clip], 10**9, planner.processor) == clip.frame_count == 24
