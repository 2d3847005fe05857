"""Conversations to prompts, in the words of each checkpoint."""

import base64
import io

import numpy as np
import pytest
import torch
from tests.processing.conftest import make_processor
from transformers.utils.chat_template_utils import render_jinja_template

from llava_next_video.errors import ConfigError, MediaError, PromptError
from llava_next_video.media import write_clip
from llava_next_video.processing import TEMPLATE_NAMES, chat_template

QUESTION = [
    {"role": "user", "content": [{"type": "text", "text": "Why is this funny?"}, {"type": "video"}]},
]
TALK = [
    {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A sign."}]},
    {"role": "user", "content": "Why?"},
]

# The templates of transformers' conversion script, as they were published (without a branch for clips).
VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}"
    "{% else %}{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}"
    "{% endfor %}"
    "{# Render all text next #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
YI = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}"
    "{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}"
    "{% endfor %}{{'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def said(processor, inputs):
    ids = inputs["input_ids"][0][inputs["assistant_masks"][0].bool()]
    return processor.decode(ids)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("vicuna", "USER: <video>\nWhy is this funny? ASSISTANT:"),
        ("mistral", "[INST] <video>\nWhy is this funny? [/INST]"),
        ("chatml", "<|im_start|>user\n<video>\nWhy is this funny?<|im_end|>\n<|im_start|>assistant\n"),
        (
            "chatml_direct",
            "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<video>\nWhy is this funny?"
            "<|im_end|><|im_start|>assistant\n",
        ),
        (
            "qwen",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<video>\n"
            "Why is this funny?<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("plain", "<video>Why is this funny?"),
    ],
)
def test_a_question_reads_as_the_checkpoint_was_trained(processor, name, prompt):
    assert processor.apply_chat_template(QUESTION, name, add_generation_prompt=True) == prompt


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("vicuna", "Be kind. USER: <image>\nWhat is it? ASSISTANT: A sign.</s>USER: Why? ASSISTANT:"),
        ("mistral", "[INST] Be kind.\n\n<image>\nWhat is it? [/INST] A sign.</s> [INST] Why? [/INST]"),
        (
            "chatml_direct",
            "<|im_start|>system\nBe kind.<|im_end|><|im_start|>user\n<image>\nWhat is it?<|im_end|>"
            "<|im_start|>assistant\nA sign.<|im_end|><|im_start|>user\nWhy?<|im_end|><|im_start|>assistant\n",
        ),
    ],
)
def test_a_conversation_goes_on_where_the_answer_ended(processor, name, prompt):
    assert processor.apply_chat_template(TALK, name, add_generation_prompt=True) == prompt


@pytest.mark.parametrize(("name", "published"), [("vicuna", VICUNA), ("chatml", YI)])
def test_prompts_about_pictures_are_those_of_the_published_templates(processor, name, published):
    (theirs,), _ = render_jinja_template(
        conversations=[TALK[1:2]], chat_template=published, add_generation_prompt=True
    )
    assert processor.apply_chat_template(TALK[1:2], name, add_generation_prompt=True) == theirs


def test_media_stand_before_the_words_in_their_order(processor):
    content = [
        {"type": "video"},
        {"type": "text", "text": "a"},
        {"type": "image"},
        {"type": "text", "text": "b"},
    ]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], "chatml")
    assert prompt == "<|im_start|>user\n<video>\n<image>\nab<|im_end|>\n"


@pytest.mark.parametrize("name", TEMPLATE_NAMES)
def test_every_template_marks_what_the_assistant_said(small_tokenizer, picture, name):
    processor = make_processor(small_tokenizer, chat_template=chat_template(name))
    talk = [TALK[1], TALK[2]]
    talk[0] = {**talk[0], "content": [{"type": "image", "image": picture}, talk[0]["content"][1]]}
    inputs = processor.apply_chat_template(
        talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    end = {"vicuna": "</s>", "mistral": "</s>", "plain": "\n"}.get(name, "<|im_end|>")
    assert said(processor, inputs).strip() == f"A sign.{end}".strip()


def test_a_template_without_marks_cannot_be_used_for_them(processor):
    with pytest.raises(PromptError, match="does not mark"):
        processor.apply_chat_template(TALK, VICUNA, return_assistant_tokens_mask=True)


def test_conversations_come_in_batches(processor):
    assert (
        processor.apply_chat_template([QUESTION, QUESTION[:1]]) == ["USER: <video>\nWhy is this funny? "] * 2
    )


def test_the_last_turn_can_be_left_open(processor):
    talk = [*QUESTION, {"role": "assistant", "content": "Because the"}]
    assert processor.apply_chat_template(talk, continue_final_message=True).endswith("ASSISTANT: Because the")
    with pytest.raises(PromptError, match="continue_final_message"):
        processor.apply_chat_template(talk, continue_final_message=True, add_generation_prompt=True)


def test_media_inside_the_messages_are_read(processor, clip, picture, tmp_path):
    film = write_clip(tmp_path / "film.mp4", clip[:, :88], 8)
    still = tmp_path / "still.png"
    picture.save(still)
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    stills = [
        {"type": "image", "image": picture},
        {"type": "image", "image": np.asarray(picture)},
        {"type": "image", "path": str(still)},
        {"type": "image", "url": still.as_uri()},
        {"type": "image", "image": buffer.getvalue()},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    for part in stills:
        talk = [
            {
                "role": "user",
                "content": [part, {"type": "video", "path": film}, {"type": "text", "text": "?"}],
            }
        ]
        inputs = processor.apply_chat_template(
            talk, tokenize=True, return_dict=True, processor_kwargs={"num_frames": 4}
        )
        assert inputs["pixel_values_videos"].shape == (1, 4, 3, 56, 56)
        wanted = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
        assert torch.equal(inputs["pixel_values"], wanted)
        assert (inputs["input_ids"] == processor.video_token_id).sum() == 16


def test_sampling_is_named_beside_the_conversation(processor, clip):
    talk = [{"role": "user", "content": [{"type": "video", "video": clip}, {"type": "text", "text": "?"}]}]
    ids = processor.apply_chat_template(talk, tokenize=True, num_frames=2)
    assert torch.equal(ids, processor("USER: <video>\n? ", videos=clip[[0, 4]])["input_ids"])
    rows = processor.apply_chat_template(talk, tokenize=True, return_tensors=None, return_dict=True)
    assert isinstance(rows["input_ids"], list)


def test_media_may_come_beside_the_conversation(processor, clip):
    inputs = processor.apply_chat_template(QUESTION, tokenize=True, return_dict=True, videos=clip)
    assert inputs["pixel_values_videos"].shape == (1, 8, 3, 56, 56)
    with pytest.raises(PromptError, match="1 <video> placeholder and 0 clips"):
        processor.apply_chat_template(QUESTION, tokenize=True)


def test_a_start_token_of_the_template_is_not_doubled(processor):
    ids = processor.apply_chat_template(TALK[3:], "{{ bos_token }}hello", tokenize=True)
    assert ids[0].tolist() == processor.tokenizer("hello")["input_ids"]


def test_variables_reach_the_template_and_strays_are_refused(processor):
    assert processor.apply_chat_template(TALK[3:], "{{ mood }}!", mood="glad") == "glad!"
    with pytest.raises(ConfigError, match="unknown keyword 'num_frame'; did you mean 'num_frames'"):
        processor.apply_chat_template(TALK[3:], num_frame=3)


def test_what_goes_wrong_is_said(small_tokenizer, processor):
    without = make_processor(small_tokenizer, chat_template=None)
    with pytest.raises(PromptError, match="no default chat template"):
        without.apply_chat_template(QUESTION)
    with pytest.raises(PromptError, match="no such role"):
        processor.apply_chat_template(TALK, "{{ raise_exception('no such role') }}")
    with pytest.raises(PromptError, match="no chat template 'klingon'"):
        chat_template("klingon")
    missing = [{"role": "user", "content": [{"type": "video", "path": "/no/such.mp4"}]}]
    with pytest.raises(MediaError, match=r"/no/such\.mp4"):
        processor.apply_chat_template(missing, tokenize=True)


def test_several_templates_go_by_name(small_tokenizer):
    processor = make_processor(small_tokenizer, chat_template={"default": "d", "other": "o"})
    assert processor.apply_chat_template(QUESTION) == "d"
    assert processor.apply_chat_template(QUESTION, "other") == "o"


def test_media_given_twice_are_refused(processor, clip):
    messages = [
        {"role": "user", "content": [{"type": "video", "video": clip}, {"type": "text", "text": "?"}]}
    ]
    with pytest.raises(PromptError, match=r"videos are given in the messages \(1\) and as videos="):
        processor.apply_chat_template(messages, tokenize=True, return_dict=True, videos=clip)
