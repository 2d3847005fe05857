"""The front door answers, streams and refuses; the engine and the reference agree behind it."""

from __future__ import annotations

import gzip
import io
import shutil
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file
from torch import Tensor

from llava_next_video import VideoAssistant
from llava_next_video.assistant import Answer
from llava_next_video.engine import Engine
from llava_next_video.errors import (
    CapacityError,
    CheckpointError,
    ConfigError,
    MediaError,
    PromptError,
    SamplingError,
)
from llava_next_video.media import Clip, Picture, Sampling, read_clip, read_image
from llava_next_video.messages import Image, Video


@pytest.fixture(scope="module")
def assistant(tiny_checkpoint: Path) -> VideoAssistant:
    return VideoAssistant.load(tiny_checkpoint, dtype="float32")


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> VideoAssistant:
    return VideoAssistant.load(tiny_checkpoint, reference=True)


@pytest.fixture(scope="module")
def picture() -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))


def test_the_engine_says_what_the_reference_says(
    assistant: VideoAssistant, reference: VideoAssistant, square_clip: Path, picture: Pillow.Image
) -> None:
    for media in (square_clip, picture, [square_clip, picture], []):
        fast = assistant.ask(media, "What happens?", max_new_tokens=12)
        plain = reference.ask(media, "What happens?", max_new_tokens=12)
        assert fast.text == plain.text
        assert fast.finish_reason == plain.finish_reason
        assert fast.usage.prompt_tokens == plain.usage.prompt_tokens


def test_visual_tokens_are_frames_times_pooled_patches(assistant: VideoAssistant, square_clip: Path) -> None:
    answer = assistant.ask(square_clip, "What happens?", frames=6, max_new_tokens=1)
    assert answer.usage.visual_tokens == 6 * 2 * 2  # 56 / 14 = 4 patches a side, pooled by 2
    assert answer.usage.completion_tokens == 1
    assert answer.finish_reason == "length"


def test_an_answer_shows_the_frames_that_the_model_saw(assistant: VideoAssistant, square_clip: Path) -> None:
    (clip,) = assistant.ask(square_clip, "?", frames=Sampling(frames=4), max_new_tokens=1).seen
    assert isinstance(clip, Clip)
    assert clip.indices == (0, 6, 12, 18)  # arange(4) * 24 // 4
    assert clip.times_s == pytest.approx((0.0, 0.5, 1.0, 1.5))


def test_the_pieces_of_a_stream_join_to_the_answer(
    assistant: VideoAssistant, reference: VideoAssistant, square_clip: Path
) -> None:
    for one in (assistant, reference):
        pieces = list(one.stream(square_clip, "What happens?", max_new_tokens=16))
        assert len(pieces) > 1
        assert "".join(pieces) == one.ask(square_clip, "What happens?", max_new_tokens=16).text


def test_a_stream_that_is_closed_leaves_nothing_running(
    assistant: VideoAssistant, reference: VideoAssistant, square_clip: Path
) -> None:
    for one in (assistant, reference):
        pieces = one.stream(square_clip, "What happens?", max_new_tokens=200)
        next(pieces)
        pieces.close()
        one.network.step()
        assert not one.network.busy


def test_an_answer_ends_before_a_stop_string(assistant: VideoAssistant, square_clip: Path) -> None:
    whole = assistant.ask(square_clip, "What happens?", max_new_tokens=24).text
    stop = whole[5:8]
    answer = assistant.ask(square_clip, "What happens?", max_new_tokens=24, stop=stop)
    assert answer.text == whole[: whole.index(stop)].rstrip()
    assert answer.finish_reason == "stop"


def test_many_questions_are_answered_in_order(
    assistant: VideoAssistant, reference: VideoAssistant, square_clip: Path, picture: Pillow.Image
) -> None:
    questions = [
        *[(square_clip, f"What happens at {n}?") for n in range(6)],
        (picture, "What is it?"),
        ([picture, square_clip], "Which?"),
    ]
    together = [str(answer) for answer in assistant.ask_many(questions, max_new_tokens=8)]
    assert together == [reference.ask(*question, max_new_tokens=8).text for question in questions]


def test_a_second_question_about_a_clip_finds_its_tokens_computed(
    tiny_checkpoint: Path, square_clip: Path
) -> None:
    assistant = VideoAssistant.load(tiny_checkpoint)
    first = assistant.ask(square_clip, "What happens?", frames=8, max_new_tokens=2).usage
    second = assistant.ask(square_clip, "Who is there?", frames=8, max_new_tokens=2).usage
    assert first.cached_tokens == 0
    assert second.cached_tokens >= 32  # two pages of 16 tokens lie within "USER: " and 8 x 4 visual tokens


def test_a_chat_may_show_several_media_over_its_turns(
    assistant: VideoAssistant, square_clip: Path, picture: Pillow.Image
) -> None:
    answer = assistant.chat(
        [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}],
            },
            {"role": "assistant", "content": "Noise."},
            {
                "role": "user",
                "content": [
                    {"type": "video_url", "video_url": {"url": str(square_clip)}},
                    {"type": "text", "text": "And this?"},
                ],
            },
        ],
        max_new_tokens=4,
    )
    assert [type(seen) for seen in answer.seen] == [Picture, Clip]


def test_the_kind_of_a_medium_can_be_said(assistant: VideoAssistant, square_clip: Path) -> None:
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    assert isinstance(assistant.ask(Video(source=frames), "?", max_new_tokens=1).seen[0], Clip)
    assert isinstance(assistant.ask(Image(source=frames[0]), "?", max_new_tokens=1).seen[0], Picture)


def test_a_source_that_can_be_read_once_is_enough(assistant: VideoAssistant, square_clip: Path) -> None:
    asked = assistant.ask(square_clip, "What happens?", max_new_tokens=3)
    with square_clip.open("rb", buffering=0) as unbuffered, gzip.open(_zipped(square_clip)) as unzipped:
        for stream in (unbuffered, unzipped):
            answer = assistant.ask(stream, "What happens?", max_new_tokens=3)
            assert answer.text == asked.text
            assert answer.seen[0].key == asked.seen[0].key


def _zipped(path: Path) -> io.BytesIO:
    return io.BytesIO(gzip.compress(path.read_bytes()))


def test_media_that_were_read_before_are_taken_as_they_are(
    assistant: VideoAssistant, square_clip: Path, picture: Pillow.Image
) -> None:
    clip = read_clip(square_clip, Sampling(frames=3))
    still = read_image(picture)
    answer = assistant.ask([clip, still], "?", max_new_tokens=1)
    assert answer.seen == (clip, still)
    assert assistant.ask(clip, "?", frames=3, max_new_tokens=1).seen == (clip,)
    with pytest.raises(ConfigError, match="give its source, or leave frames out"):
        assistant.ask(clip, "?", frames=4, max_new_tokens=1)


def test_several_answers_to_one_question_are_those_of_their_seeds(
    assistant: VideoAssistant, reference: VideoAssistant, square_clip: Path
) -> None:
    wishes = {"max_new_tokens": 10, "temperature": 1.0}
    alone = [assistant.ask(square_clip, "?", seed=seed, **wishes).text for seed in (5, 6, 7)]
    first = assistant.ask(square_clip, "?", seed=5, n=3, **wishes)
    assert [first.text, *(other.text for other in first.others)] == alone
    assert len(set(alone)) == 3
    assert [other.usage.completion_tokens for other in first.others] == [10, 10]
    assert first.others[0].others == ()
    questions = [(square_clip, "?"), (square_clip, "Who?")]
    both = list(assistant.ask_many(questions, seed=5, n=2, **wishes))
    assert [len(answer.others) for answer in both] == [1, 1]
    assert [both[0].text, both[0].others[0].text] == alone[:2]
    assert len(reference.ask(square_clip, "?", n=2, **wishes).others) == 1
    assert not assistant.network.busy


def test_each_of_several_answers_ends_at_its_own_stop_string(
    assistant: VideoAssistant, square_clip: Path
) -> None:
    wishes = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5, "n": 2}
    whole = assistant.ask(square_clip, "?", **wishes)
    stop = whole.text[4:6]
    assert stop not in whole.others[0].text
    cut = assistant.ask(square_clip, "?", stop=stop, **wishes)
    assert cut.text == whole.text[: whole.text.index(stop)].rstrip()
    assert cut.finish_reason == "stop"
    assert cut.others[0].text == whole.others[0].text


def test_a_guide_says_which_ids_may_follow(assistant: VideoAssistant, square_clip: Path) -> None:
    letters = assistant.processor.tokenizer("abc", add_special_tokens=False)["input_ids"]
    vocabulary = assistant.processor.tokenizer.get_vocab()

    def spell(answer: Sequence[int]) -> Tensor:
        allowed = torch.zeros(len(vocabulary), dtype=torch.bool)
        allowed[letters[len(answer) % len(letters)]] = True
        return allowed

    answer = assistant.ask(square_clip, "?", guide=spell, max_new_tokens=len(letters), n=2)
    assert [answer.text, answer.others[0].text] == ["abc", "abc"]


def test_a_stream_is_one_answer(assistant: VideoAssistant, square_clip: Path) -> None:
    with pytest.raises(SamplingError, match="n is 2, and a stream is one answer"):
        next(assistant.stream(square_clip, "?", n=2))


def test_a_seed_repeats_a_sampled_answer(assistant: VideoAssistant, square_clip: Path) -> None:
    def sampled(seed: int) -> str:
        return assistant.ask(square_clip, "?", max_new_tokens=12, temperature=1.0, seed=seed).text

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_placeholder_ids_that_disagree_follow_the_tokenizer(
    tiny_checkpoint: Path, tmp_path: Path, square_clip: Path, assistant: VideoAssistant
) -> None:
    folder = tmp_path / "swapped"
    shutil.copytree(tiny_checkpoint, folder)
    config = (folder / "config.json").read_text()
    true = assistant.processor.video_token_id
    config = config.replace(f'"video_token_index": {true}', f'"video_token_index": {true + 7}')
    (folder / "config.json").write_text(config)
    with pytest.warns(UserWarning, match="the tokenizer's are used") as warned:
        other = VideoAssistant.load(folder, dtype="float32")
    assert len(warned) == 1
    asked = (square_clip, "What happens?")
    assert other.ask(*asked, max_new_tokens=4).text == assistant.ask(*asked, max_new_tokens=4).text


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        ({"max_new_token": 3}, "did you mean 'max_new_tokens'"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"n": 0}, "n is 0"),
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; expected a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens is True; expected a whole number"),
        ({"seed": "1"}, "seed is '1'; expected a whole number, or None"),
        ({"stop": 7}, "stop is 7; expected a string or a list of strings"),
        ({"stop": ["a", 7]}, "expected a string or a list of strings"),
        ({"stop_token_ids": "7"}, "expected a list of token ids"),
        ({"logit_bias": {"a": 1}}, "expected numbers by token id"),
        ({"ignore_eos": 1}, "expected True or False"),
        ({"guide": "json"}, "guide is 'json'; expected a function"),
    ],
)
def test_a_wrong_generation_setting_is_named(
    assistant: VideoAssistant, square_clip: Path, sampling: dict[str, object], says: str
) -> None:
    with pytest.raises(SamplingError, match=says):
        assistant.ask(square_clip, "?", **sampling)


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(
    assistant: VideoAssistant, reference: VideoAssistant
) -> None:
    frames = np.zeros((1100, 8, 8, 3), np.uint8)  # 4,400 visual tokens, 4,096 positions
    for one in (assistant, reference):
        with pytest.raises(CapacityError, match=r"46\d\d tokens needed.* 4096 fit"):
            one.ask(frames, "?", frames=1100)


def test_one_bad_clip_does_not_harm_the_next_question(
    assistant: VideoAssistant, square_clip: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "text.mp4"
    bad.write_text("not a clip")
    with pytest.raises(MediaError, match=r"text\.mp4"):
        list(assistant.ask_many([(Video(source=bad), "?"), (square_clip, "?")], max_new_tokens=2))
    assert assistant.ask(square_clip, "?", max_new_tokens=2).usage.completion_tokens == 2
    assert not assistant.network.busy


def test_answers_before_a_missing_medium_are_given_first(
    assistant: VideoAssistant, square_clip: Path, tmp_path: Path
) -> None:
    questions = [(square_clip, "?"), (square_clip, "!"), (tmp_path / "absent.mp4", "?")]
    answers = assistant.ask_many(questions, max_new_tokens=2)
    assert [next(answers).usage.completion_tokens for _ in range(2)] == [2, 2]
    with pytest.raises(MediaError, match=r"absent\.mp4"):
        next(answers)


def test_a_question_asked_while_another_answer_streams_takes_nothing_from_it(
    assistant: VideoAssistant, reference: VideoAssistant, square_clip: Path
) -> None:
    for one in (assistant, reference):
        texts = [
            one.ask(square_clip, question, max_new_tokens=n).text for question, n in (("A?", 9), ("B?", 16))
        ]
        pieces = one.stream(square_clip, "A?", max_new_tokens=9)
        first = next(pieces)
        assert one.ask(square_clip, "B?", max_new_tokens=16).text == texts[1]
        assert first + "".join(pieces) == texts[0]


@pytest.mark.parametrize("which", ["assistant", "reference"])
def test_many_threads_may_ask_one_assistant(
    which: str, square_clip: Path, picture: Pillow.Image, request: pytest.FixtureRequest
) -> None:
    """They ask, stream and give up all at once; each gets the answer that it gets alone."""
    asked = request.getfixturevalue(which)
    questions = [(square_clip, "What happens?"), (picture, "What is there?"), ([], "Who are you?")]
    wanted = [asked.ask(*question, max_new_tokens=9).text for question in questions]
    begun, found = threading.Barrier(6), {}

    def work(number: int) -> None:
        begun.wait()
        said = []
        for place in range(number, number + 4):
            question = questions[place % 3]
            if place % 4 == 3:  # somebody who does not wait for the end
                with closing(asked.stream(*question, max_new_tokens=30)) as pieces:
                    next(pieces)
            elif place % 4 == 2:
                said += [answer.text for answer in asked.ask_many([question, question], max_new_tokens=9)]
            else:
                said.append(asked.ask(*question, max_new_tokens=9).text)
        found[number] = said

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {
        number: [
            wanted[place % 3]
            for place in range(number, number + 4)
            for _ in range({3: 0, 2: 2}.get(place % 4, 1))
        ]
        for number in range(6)
    }
    asked.ask([], "Who are you?", max_new_tokens=1)  # who gave up is forgotten in the next step
    assert not asked.network.busy


def test_a_conversation_must_end_with_the_user(assistant: VideoAssistant) -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    with pytest.raises(PromptError, match="end with a user's message"):
        assistant.chat(messages)


def test_a_medium_without_a_source_is_refused(assistant: VideoAssistant) -> None:
    with pytest.raises(PromptError, match="gives none; write the part as"):
        assistant.chat([{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "?"}]}])


def test_a_clip_beside_the_content_is_refused_and_beside_a_llava_value_seen(
    assistant: VideoAssistant, square_clip: Path
) -> None:
    with pytest.raises(PromptError, match="unknown key 'video'"):
        assistant.chat([{"role": "user", "content": "What moves?", "video": square_clip}])
    llava = [{"from": "human", "value": "<video>\nWhat moves?", "video": square_clip}]
    expected = assistant.ask(square_clip, "What moves?", max_new_tokens=2)
    answer = assistant.chat(llava, max_new_tokens=2)
    assert (answer.text, answer.usage.prompt_tokens) == (expected.text, expected.usage.prompt_tokens)


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"device": "gpu9"}, "device 'gpu9' is not usable here"),
        ({"dtype": "int3"}, "unknown dtype 'int3'"),
        ({"quantize": "int2"}, "unknown quantisation 'int2'; known: int8, int4, fp8, bnb-8bit, bnb-4bit"),
        ({"quantize": "int8", "reference": True}, "for the reference network: bnb-8bit, bnb-4bit"),
    ],
)
def test_wishes_that_cannot_be_honoured_are_refused(
    tiny_checkpoint: Path, wishes: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        VideoAssistant.load(tiny_checkpoint, **wishes)  # type: ignore[arg-type]


def test_the_reference_refuses_what_only_the_engine_does(
    reference: VideoAssistant, square_clip: Path
) -> None:
    with pytest.raises(ConfigError, match="does not honour presence_penalty"):
        reference.ask(square_clip, "?", presence_penalty=0.5)


def test_a_checkpoint_with_missing_weights_names_them(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "holes"
    shutil.copytree(tiny_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["image_newline"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="image_newline"):
        VideoAssistant.load(folder)


def test_a_chat_is_streamed_and_ends_with_the_whole_answer(
    assistant: VideoAssistant, square_clip: Path
) -> None:
    messages = [
        {
            "role": "user",
            "content": [{"type": "video", "path": str(square_clip)}, {"type": "text", "text": "?"}],
        },
        {"role": "assistant", "content": "A square."},
        {"role": "user", "content": "Where does it go?"},
    ]
    *pieces, answer = assistant.stream_chat(messages, max_new_tokens=8)
    assert isinstance(answer, Answer)
    assert "".join(map(str, pieces)) == answer.text == assistant.chat(messages, max_new_tokens=8).text


def test_memory_for_keys_and_values_is_what_was_asked_for(tiny_checkpoint: Path) -> None:
    small = VideoAssistant.load(tiny_checkpoint, kv_bytes=1 << 22).network
    assert isinstance(small, Engine)
    assert small.settings.kv_bytes == 1 << 22


@pytest.mark.parametrize(("more", "told"), [({}, "needs a GPU"), ({"reference": True}, "is the engine's")])
def test_eight_bit_keys_are_refused_where_nothing_can_hold_them(
    tiny_checkpoint: Path, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        VideoAssistant.load(tiny_checkpoint, device="cpu", kv_dtype="fp8", **more)
