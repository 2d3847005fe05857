"""Conversations whose media were read, to inputs with promised pixels."""

import numpy as np
import pytest
import torch
from tests.processing.conftest import make_processor

from llava_next_video.errors import PromptError
from llava_next_video.media import Sampling, read_clip, read_image
from llava_next_video.messages import Image, Text, Turn, Video, user
from llava_next_video.processing import LlavaNextVideoImageProcessor
from llava_next_video.size import Size


@pytest.fixture
def seen(clip, picture):
    return read_clip(clip), read_image(picture)


def test_ids_and_pixels_are_those_of_a_call(processor, clip, picture, seen):
    turns = [user("What?", [Video(), Image()])]
    prepared = processor.prepare(turns, seen)
    wanted = processor("USER: <video>\n<image>\nWhat? ASSISTANT:", images=picture, videos=clip)
    assert list(prepared.ids) == wanted["input_ids"][0].tolist()
    moving, still = prepared.media
    assert (moving.kind, still.kind) == ("video", "image")
    assert (moving.size, still.size) == (None, Size(90, 50))
    assert torch.equal(moving.load(), wanted["pixel_values_videos"][0])
    assert torch.equal(still.load(), wanted["pixel_values"][0])


def test_each_medium_stands_where_its_placeholders_are(processor, seen):
    prepared = processor.prepare([user("What?", [Image(), Video(), Video()])], (seen[1], seen[0], seen[0]))
    kinds = {"image": processor.image_token_id, "video": processor.video_token_id}
    for medium in prepared.media:
        run = prepared.ids[medium.start : medium.start + medium.tokens]
        assert set(run) == {kinds[medium.kind]}
    assert prepared.visual_tokens == sum(token in kinds.values() for token in prepared.ids)
    assert prepared.media[1].key == prepared.media[2].key


def test_a_key_changes_with_everything_that_changes_the_pixels(small_tokenizer, clip):
    processor = make_processor(small_tokenizer)
    bigger = make_processor(small_tokenizer)
    bigger.video_processor = LlavaNextVideoImageProcessor(size=60, crop_size=56)
    turns = [user("?", [Video()])]

    def key(made_by, footage, **sampling):
        return made_by.prepare(turns, [read_clip(footage, Sampling(**sampling))]).media[0].key

    usual = key(processor, clip)
    assert key(processor, clip.copy()) == usual
    assert len(usual) == 32
    changed = clip.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        key(processor, changed),
        key(processor, clip, frames=4),
        key(processor, clip, frames=4, how="linspace"),
        key(bigger, clip),
    ]
    assert len({usual, *others}) == 5


def test_the_assistants_words_and_their_end_are_marked(processor, seen):
    turns = [
        user("What?", [Video()]),
        Turn(role="assistant", parts=(Text(text="A fox."),)),
        user("And?"),
        Turn(role="assistant", parts=(Text(text="It runs."),)),
    ]
    prepared, spoken = processor.prepare_spoken(turns, seen[:1])
    assert len(spoken) == len(prepared.ids)
    words = processor.decode([token for token, own in zip(prepared.ids, spoken, strict=True) if own])
    assert words.replace(" ", "") == "Afox.</s>Itruns.</s>"
    assert not any(spoken[: prepared.media[0].start + prepared.media[0].tokens])


@pytest.mark.parametrize(
    ("parts", "count", "sentence"),
    [
        ([Video()], 0, "1 <video> placeholder and 0 clips"),
        ([], 1, "0 <video> placeholders and 1 clip "),
        ([Image()], 1, "1 <image> placeholder and 0 pictures"),
    ],
)
def test_turns_and_media_are_counted(processor, seen, parts, count, sentence):
    with pytest.raises(PromptError, match=sentence):
        processor.prepare([user("?", parts)], seen[:1] * count)


def test_words_that_look_like_a_placeholder_are_refused(processor, seen):
    with pytest.raises(PromptError, match="2 <video> placeholders and 1 clip "):
        processor.prepare([user("what does <video> mean?", [Video()])], seen[:1])


def test_pixels_are_not_made_before_they_are_asked_for(processor, seen):
    prepared = processor.prepare([user("?", [Video(), Image()])], seen)
    assert all(callable(medium.pixels) for medium in prepared.media)
    assert np.array_equal(prepared.media[0].load().numpy(), prepared.media[0].load().numpy())
