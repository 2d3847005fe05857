"""Texts and media to model inputs."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_next_video.errors import CapacityError, ConfigError, MediaError, PromptError
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.processing.call import read_call

# 56 pixels are 4x4 patches, pooled to 2x2 tokens a frame.
A_FRAME = 4


def test_the_prompt_of_the_release_has_its_ids(llama_tokenizer, clip):
    from tests.processing.conftest import make_processor

    processor = make_processor(llama_tokenizer)
    inputs = processor(text="USER: <video>\nWhy is this video funny? ASSISTANT:", videos=clip)
    # Source: transformers 4.42, tests/models/llava_next_video, the ids of the 7B checkpoint.
    before, after = [1, 3148, 1001, 29901, 29871], [13, 11008, 338, 445, 4863, 2090, 1460, 29973]
    after += [319, 1799, 9047, 13566, 29901]
    assert inputs["input_ids"].tolist() == [before + [32000] * 8 * A_FRAME + after]


def test_ids_are_those_of_the_text_with_repeated_placeholders(processor, clip, picture):
    text = "<image>A <video>\nb<video><image> c"
    got = processor(text=text, images=[picture, picture], videos=[clip, clip[:3]])
    # A 90x50 picture on 112x56: 16 base patches, then of 8 rows x 4 columns the rows that saw the picture:
    # 90 * 4/50 = 7.2, so 7 rows, and an odd remainder of 1 is kept: 8 rows of 4 and a newline.
    still = 16 + 8 * 5
    long = text.replace("<image>", "<image>" * still)
    first, second = long.split("<video>", 1)[0], long.split("<video>", 1)[1]
    long = first + "<video>" * 8 * A_FRAME + second.replace("<video>", "<video>" * 3 * A_FRAME)
    assert got["input_ids"].tolist() == [processor.tokenizer(long)["input_ids"]]
    assert got["image_sizes"].tolist() == [[90, 50], [90, 50]]
    assert [len(one) for one in got["pixel_values_videos"]] == [8, 3]


def test_a_batch_is_padded_on_the_side_of_the_tokenizer(processor, clip):
    texts = ["<video>", "What happens in this video? <video>"]
    left = processor(texts, videos=[clip, clip], padding=True)
    assert left["attention_mask"][0, 0] == 0
    assert left["attention_mask"][0, -1] == 1
    processor.tokenizer.padding_side = "right"
    try:
        right = processor(texts, videos=[clip, clip], padding=True)
    finally:
        processor.tokenizer.padding_side = "left"
    assert torch.equal(right["attention_mask"], left["attention_mask"].flip(1))
    named = processor(texts, videos=[clip, clip], padding=True, padding_side="right")
    assert torch.equal(named["input_ids"], right["input_ids"])
    assert right["input_ids"][0, -1] == processor.tokenizer.pad_token_id


def test_padding_goes_to_a_length_or_a_multiple(processor):
    assert processor("hello", padding="max_length", max_length=40)["input_ids"].shape == (1, 40)
    assert processor("hello", padding=True, pad_to_multiple_of=16)["input_ids"].shape[1] % 16 == 0


def test_texts_of_different_lengths_need_padding(processor):
    with pytest.raises(PromptError, match="padding=True"):
        processor(["a", "a longer text"])
    rows = processor(["a", "a longer text"], return_tensors=None)["input_ids"]
    assert len(rows[0]) < len(rows[1])


def test_text_alone_and_media_alone_are_fine(processor, clip, picture):
    assert set(processor("hello")) == {"input_ids", "attention_mask"}
    assert set(processor(images=picture)) == {"pixel_values", "image_sizes"}
    assert set(processor(videos=clip)) == {"pixel_values_videos"}
    with pytest.raises(PromptError, match="nothing was given"):
        processor()


def test_the_order_of_the_release_is_text_images_videos(processor, clip, picture):
    swapped = processor("<image><video>", picture, clip)
    named = processor(text="<image><video>", images=picture, videos=clip)
    assert torch.equal(swapped["input_ids"], named["input_ids"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (lambda picture, clip: (picture, "USER: <image>"), "text is a picture"),
        (lambda picture, clip: ([picture], ["USER: <image>"]), "starts with a picture"),
        (lambda picture, clip: (clip, "USER: <video>"), r"text is an array of shape \(8, 90, 160, 3\)"),
        (lambda picture, clip: ("a.png", "USER: <image>"), "images is a text with placeholders"),
        (lambda picture, clip: ("hello", None, ["<video>"]), "videos is a text with placeholders"),
        (lambda picture, clip: (7,), "text is a int"),
    ],
)
def test_swapped_arguments_are_named(processor, picture, clip, arguments, sentence):
    with pytest.raises(PromptError, match=sentence) as caught:
        processor(*arguments(picture, clip))
    assert "text, images, videos" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "clips", "sentence"),
    [
        ("<video> <video>", 1, "2 <video> placeholders and 1 clip "),
        ("<video>", 2, "1 <video> placeholder and 2 clips"),
        ("<video>", 0, "1 <video> placeholder and 0 clips"),
        ("hello", 1, "0 <video> placeholders and 1 clip "),
        ("<video><image>", 1, "1 <image> placeholder and 0 pictures"),
    ],
)
def test_placeholders_and_media_are_counted(processor, clip, text, clips, sentence):
    with pytest.raises(PromptError, match=sentence):
        processor(text, videos=[clip] * clips or None)


def test_words_are_truncated_but_visual_tokens_never(processor, clip):
    text = "Describe <video>" + " the video" * 20
    whole = processor(text, videos=clip)["input_ids"][0].tolist()
    cut = processor(text, videos=clip, truncation=True, max_length=len(whole) - 6)["input_ids"][0].tolist()
    assert cut == whole[:-6]
    with pytest.raises(CapacityError, match=f"the prompt has {len(whole)} tokens, 32 of them visual"):
        processor(text, videos=clip, truncation=True, max_length=20)
    assert processor(text, videos=clip, max_length=20)["input_ids"].shape[1] == len(whole)


def test_truncation_on_the_left_keeps_the_first_special_token(processor, clip):
    text = "the video " * 20 + "<video> why?"
    whole = processor(text, videos=clip)["input_ids"][0].tolist()
    processor.tokenizer.truncation_side = "left"
    try:
        cut = processor(text, videos=clip, truncation=True, max_length=len(whole) - 7)
    finally:
        processor.tokenizer.truncation_side = "right"
    assert cut["input_ids"][0].tolist() == whole[:1] + whole[8:]


def test_settings_reach_the_processor_they_belong_to(processor, clip, picture):
    out = processor("<video>", videos=clip, num_frames=2)
    assert (out["input_ids"] == processor.video_token_id).sum() == 2 * A_FRAME
    grouped = processor(
        "<video>", videos=clip, videos_kwargs={"num_frames": 2}, text_kwargs={"padding": True}
    )
    assert torch.equal(out["input_ids"], grouped["input_ids"])
    square = {"height": 84, "width": 84}
    bigger = processor("<video>", videos=clip, size={"shortest_edge": 84}, crop_size=square)
    # 84 pixels are 6x6 patches, pooled to 3x3.
    assert (bigger["input_ids"] == processor.video_token_id).sum() == 8 * 9


@pytest.mark.parametrize("name", ["frames", "num_frame", "text_pair", "audio"])
def test_an_unknown_keyword_is_refused(processor, name):
    with pytest.raises(ConfigError, match=f"unknown keyword '{name}'"):
        processor("hello", **{name: 1})


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"images_kwargs": {"padding": True}}, "images_kwargs takes no 'padding'; it belongs to text_kwargs"),
        ({"videos_kwargs": {"do_pad": True}}, "videos_kwargs takes no 'do_pad'; it belongs to images_kwargs"),
        ({"text_kwargs": {"size": 84}}, "belongs to images_kwargs or videos_kwargs"),
        ({"images_kwargs": {"return_tensors": "np"}}, "takes no 'return_tensors'"),
        ({"images_kwargs": {"pading": True}}, "unknown keyword 'pading'; did you mean 'padding'"),
        ({"text_kwargs": "padding"}, "text_kwargs is 'padding'; expected keywords by name"),
        ({"max_length": 2.5}, "max_length is 2.5; expected a whole number"),
        ({"pad_to_multiple_of": "8"}, "pad_to_multiple_of is '8'"),
        ({"add_special_tokens": "no"}, "add_special_tokens is 'no'; expected True, False or None"),
    ],
)
def test_a_keyword_in_the_wrong_place_or_of_the_wrong_kind_is_refused(keywords, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_call(keywords)


@pytest.mark.parametrize(
    "empty",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((3, 0, 5), np.uint8),
        torch.zeros(0, 4),
        Image.new("RGB", (0, 5)),
        [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)],
    ],
)
def test_an_empty_picture_is_refused(processor, empty):
    with pytest.raises(MediaError, match=r"empty array|at least one"):
        processor("<image>", images=empty)


def test_everything_moves_and_changes_type_together(processor, clip):
    inputs = processor("<video><video>", videos=[clip, clip[:2]]).to("cpu", torch.float16)
    assert [one.dtype for one in inputs["pixel_values_videos"]] == [torch.float16] * 2
    assert inputs["input_ids"].dtype == torch.int64


def test_counts_follow_pooling_and_newlines(small_tokenizer, clip):
    from tests.processing.conftest import make_processor

    counts = {
        ("average", 1, "no_token"): 8 * 16,
        ("average", 2, "frame"): 8 * 5,
        ("average", 2, "grid"): 8 * 2 * 3,
        ("average", 2, "one_token"): 8 * 4 + 1,
        ("bilinear", 3, "no_token"): 8 * 4,
        ("average", 3, "no_token"): 8 * 1,
    }
    for (mode, stride, newline), wanted in counts.items():
        processor = make_processor(
            small_tokenizer, spatial_pool_mode=mode, spatial_pool_stride=stride, video_newline=newline
        )
        ids = processor("<video>", videos=clip)["input_ids"]
        assert (ids == processor.video_token_id).sum() == wanted


def test_answers_come_back_as_text(processor):
    ids = processor("What happens?")["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == [
        "What happens?"
    ]
    assert processor.decode(ids[0], skip_special_tokens=True) == "What happens?"
    assert processor.post_process_image_text_to_text(ids) == ["What happens?"]


def test_arrays_of_numpy_are_made_on_request(processor, clip):
    out = processor("<video>", videos=clip, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in out.values())


def test_a_tokenizer_without_placeholders_is_refused(small_tokenizer):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(ConfigError, match="has no token '<image>'"):
        LlavaNextVideoProcessor(tokenizer=bare)
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        LlavaNextVideoProcessor()


def test_without_a_patch_size_there_is_no_count(small_tokenizer, clip):
    from tests.processing.conftest import make_processor

    with pytest.raises(ConfigError, match="patch_size is not set"):
        make_processor(small_tokenizer, patch_size=None)("<video>", videos=clip)


def test_token_types_mark_pictures_and_clips(processor, clip):
    out = processor("a <video>", videos=clip, return_mm_token_type_ids=True)
    assert out["mm_token_type_ids"][0].tolist().count(2) == 8 * A_FRAME


def test_a_picture_of_one_row_costs_its_base_tile_only(processor):
    thin = Image.new("RGB", (1000, 1))
    ids = processor("<image>", images=thin)["input_ids"]
    assert (ids == processor.image_token_id).sum() == 16
