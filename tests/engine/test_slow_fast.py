"""Slow-fast clips: the layout counts what is laid out, as the original orders it, in both networks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.conftest import END, SIDE, clip, medium, picture, prompt, tiny, words
from torch import Tensor
from transformers import GenerationConfig

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.errors import ConfigError, PromptError
from llava_next_video.geometry import video_layout
from llava_next_video.inputs import Medium, ModelInputs
from llava_next_video.long_video import ClipLayout, SlowFast
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.model.connector import NEWLINE, clip_order
from llava_next_video.model.reference import answer_ids
from llava_next_video.size import Size

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16, frame_budget=4)
ORIGINAL = {
    "add_faster_video": True,
    "faster_token_stride": 3,
    "video_newline": "grid",
    "spatial_pool_mode": "bilinear",
    "pool_before_projector": False,
}


def ours(**connector: Any) -> Any:
    """Our network with the weights of the tiny one of transformers."""
    theirs = tiny()
    model = LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(**{**theirs.config.to_dict(), **connector})
    ).eval()
    model.load_state_dict(theirs.state_dict(), strict=False)
    model.generation_config = theirs.generation_config
    return model


def asked(model: Any, one: Medium, layout: ClipLayout | None, *behind: Any) -> ModelInputs:
    """A question about a clip that becomes tokens in that way."""
    tokens = model.config.video_layout(len(one.load()), layout).tokens
    inputs = prompt(words(1, 3), replace(one, tokens=tokens), *behind, words(2, 9))
    media = [
        replace(seen, layout=layout, key=hashlib.sha256(seen.key + repr(layout).encode()).digest())
        if seen.kind == "video"
        else seen
        for seen in inputs.media
    ]
    return replace(inputs, media=tuple(media))


def referred(model: Any, inputs: ModelInputs) -> list[int]:
    """What the reference network answers."""
    config = GenerationConfig(
        max_new_tokens=10, do_sample=False, suppress_tokens=[300, 301], eos_token_id=END, pad_token_id=0
    )
    return [id for id in answer_ids(model, inputs, config) if id != END]


layouts = st.builds(
    lambda frames, grid, stride, newline, every, token: video_layout(
        frames,
        tile=Size(grid.height * 2 * stride, grid.width * 2 * stride),
        patch=1,
        stride=stride,
        mode="average",
        newline=newline,
        slow_fast=SlowFast(every=every) if every else None,
        frame_token=token,
    ),
    st.integers(1, 40),
    st.builds(Size, st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.sampled_from(["no_token", "one_token", "frame", "grid"]),
    st.sampled_from([0, 2, 3, 10]),
    st.booleans(),
)


@given(layouts)
@settings(max_examples=60, deadline=None)
def test_the_count_is_the_length_of_the_order_and_every_patch_stands_in_it_once(layout: Any) -> None:
    order = clip_order(layout)
    assert len(order) == layout.tokens
    assert order[order >= 0].tolist() == list(range(layout.patches))
    marks = {
        "no_token": 0,
        "one_token": 1,
        "frame": layout.frames,
        "grid": sum(grid.height for grid in layout.grids),
    }
    assert int((order == NEWLINE).sum()) == marks[layout.newline]
    assert int((order < NEWLINE).sum()) == layout.frames * layout.frame_token


@given(st.integers(1, 200), st.integers(2, 12))
def test_slow_frames_are_every_so_many_from_the_first_on(frames: int, every: int) -> None:
    layout = video_layout(
        frames,
        tile=336,
        patch=14,
        stride=2,
        mode="average",
        newline="no_token",
        slow_fast=SlowFast(every=every),
    )
    slow = len(range(0, frames, every))
    assert layout.tokens == slow * 144 + (frames - slow) * 36


def in_the_originals_order(
    projected: Tensor, side: int, *, every: int, newline: Tensor, faster_token: Tensor
) -> Tensor:
    """What LLaVA-NeXT puts in place of a clip: frames are pooled twice, and each takes one of the two."""

    def pooled(stride: int) -> list[list[Tensor]]:
        frames = []
        for frame in projected:
            image = frame.T.reshape(1, -1, side, side)
            small = F.interpolate(image, size=-(-side // stride), mode="bilinear")[0]
            tokens = []
            for row in small.unbind(1):
                tokens += [*row.T, newline]
            frames.append(tokens)
        return frames

    slow, fast = pooled(2), pooled(4)
    said = []
    for number in range(len(projected)):
        said += (slow if number % every == 0 else fast)[number]
        said.append(faster_token)
    return torch.stack(said)


def test_the_reference_orders_a_clip_as_the_original_does() -> None:
    model = ours(**ORIGINAL)
    frames = clip(1, 8).load()
    with torch.inference_mode():
        found = model.get_video_features([frames])
        wanted = in_the_originals_order(
            model.model.multi_modal_projector(found.last_hidden_state),
            SIDE // 14,
            every=3,
            newline=model.model.image_newline,
            faster_token=model.model.faster_token,
        )
    torch.testing.assert_close(found.pooler_output[0], wanted, atol=1e-5, rtol=1e-5)
    # slow frames 0, 3, 6: 2 rows of 2 and a newline, and a token; the others: 1 row of 1
    assert len(wanted) == model.config.video_layout(8).tokens == 3 * 7 + 5 * 3


@pytest.mark.parametrize(
    ("connector", "layout"),
    [
        (ORIGINAL, None),
        (ORIGINAL, ClipLayout(slow_fast=SlowFast(every=2, stride=1), newline="frame")),
        ({}, ClipLayout(slow_fast=SlowFast(every=4))),
        ({}, ClipLayout(slow_fast=SlowFast(every=2, stride=1), newline="grid")),
        ({"spatial_pool_mode": "max"}, ClipLayout(slow_fast=SlowFast(every=5), newline="one_token")),
        ({}, ClipLayout(newline="frame")),
        ({"video_newline": "grid"}, ClipLayout(newline="no_token")),
    ],
    ids=str,
)
def test_the_engine_lays_clips_out_as_the_reference_does(connector: Any, layout: Any) -> None:
    model = ours(**connector)
    inputs = asked(model, clip(1, 11), layout, picture(2, Size(80, 50)))
    answer = Engine.from_model(model, SETTINGS).generate([inputs], SamplingOptions(max_new_tokens=10))[0]
    assert list(answer.ids) == referred(model, inputs)


def test_one_clip_in_several_layouts_is_answered_in_one_batch() -> None:
    model = ours()
    wishes = [None, ClipLayout(slow_fast=SlowFast(every=2)), ClipLayout(newline="grid")]
    prompts = [asked(model, clip(1, 9), wish) for wish in wishes]
    answers = Engine.from_model(model, SETTINGS).generate(prompts, SamplingOptions(max_new_tokens=10))
    assert [list(answer.ids) for answer in answers] == [referred(model, inputs) for inputs in prompts]
    assert len({len(inputs.ids) for inputs in prompts}) == 3


def test_a_clip_with_the_placeholders_of_another_layout_is_refused() -> None:
    model = ours()
    one = medium("video", 0, 36, None, clip(1, 9).load())
    inputs = prompt(words(1, 3), one)
    wrong = replace(inputs, media=(replace(inputs.media[0], layout=ClipLayout(newline="grid")),))
    answer = Engine.from_model(model, SETTINGS).generate([wrong], SamplingOptions(max_new_tokens=2))[0]
    assert "54 visual tokens but the prompt has 36" in (answer.last.error or "")
    with pytest.raises(PromptError):
        referred(model, wrong)


def test_the_learned_token_is_saved_and_loaded(tmp_path: Path) -> None:
    model = ours(**ORIGINAL)
    model.save_pretrained(tmp_path)
    again = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.slow_fast == SlowFast(every=3)
    assert torch.equal(again.model.faster_token, model.model.faster_token)
    inputs = asked(model, clip(1, 5), None)
    engine = Engine.from_folder(tmp_path, SETTINGS)
    assert list(engine.generate([inputs], SamplingOptions(max_new_tokens=10))[0].ids) == referred(
        again, inputs
    )


@pytest.mark.parametrize(
    ("wish", "mode", "told"),
    [
        (
            lambda: SlowFast(every=1),
            "average",
            "every=1 leaves no fast frames; give a whole number, 2 or more",
        ),
        (
            lambda: SlowFast(stride=0),
            "average",
            "stride 0; slow frames are pooled by a whole number, 1 or more",
        ),
        (lambda: SlowFast(stride=5), "average", "10 does not divide a frame of 24x24 patches"),
        (lambda: SlowFast(stride=9), "max", "18 does not divide a frame of 24x24 patches"),
        (SlowFast, "conv", "pools by two strides, and 'conv' pooling was learnt for one"),
    ],
)
def test_what_cannot_be_laid_out_is_refused_in_a_sentence(wish: Any, mode: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        video_layout(8, tile=336, patch=14, stride=2, mode=mode, newline="no_token", slow_fast=wish())
