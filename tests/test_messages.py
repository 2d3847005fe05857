"""The three spellings of a conversation read alike."""

import pytest

from llava_next_video.errors import PromptError
from llava_next_video.messages import Image, Text, Turn, Video, as_chat, read_messages, user

CLIP_THEN_QUESTION = (Video(source="a.mp4"), Text(text="Why?"))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "path": "a.mp4"},
        {"type": "video", "url": "a.mp4"},
        {"type": "video", "video": "a.mp4"},
        {"type": "video_url", "video_url": {"url": "a.mp4"}},
        {"type": "video_url", "video_url": "a.mp4"},
        {"type": "input_video", "input_video": None, "video_url": "a.mp4"},
    ],
)
def test_every_spelling_of_a_clip_reads_the_same(part: dict[str, object]) -> None:
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "Why?"}]}]
    assert read_messages(messages) == (Turn(role="user", parts=CLIP_THEN_QUESTION),)


def test_a_llava_conversation_reads_as_turns() -> None:
    conversation = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A sign."},
        {"from": "human", "value": "And <video> this?"},
    ]
    assert read_messages(conversation) == (
        Turn(role="user", parts=(Image(), Text(text="What is it?"))),
        Turn(role="assistant", parts=(Text(text="A sign."),)),
        Turn(role="user", parts=(Text(text="And "), Video(), Text(text=" this?"))),
    )


@pytest.mark.parametrize("value", ["<image>\nWhat is it?", "What is it?\n<image>", "What is it?\n<image>\n"])
def test_the_line_break_of_a_llava_placeholder_is_no_part_of_the_words(value: str) -> None:
    (turn,) = read_messages([{"from": "human", "value": value}])
    assert (turn.text, turn.media) == ("What is it?", (Image(),))


def test_a_developer_speaks_as_the_system() -> None:
    assert read_messages([{"role": "developer", "content": "Be brief."}])[0].role == "system"


def test_turns_pass_through_unchanged() -> None:
    turns = (user("Why?", [Video(source=b"bytes")]),)
    assert read_messages(turns) == turns


def test_chat_messages_carry_no_sources() -> None:
    assert as_chat([user("Why?", [Video(source="a.mp4"), Image()])]) == [
        {"role": "user", "content": [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "Why?"}]}
    ]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("hello", "expected a list of messages, got str"),
        ([], "the conversation is empty"),
        ([3], "message 0: expected a mapping"),
        ([{"role": "robot", "content": ""}], "message 0: role is 'robot'"),
        ([{"role": "user"}], "message 0: expected 'role' and 'content'"),
        ([{"role": "user", "content": 3}], "message 0: content is int"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "message 0, part 0: type is 'audio'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "a text part needs 'text'"),
        (
            [{"role": "user", "content": [{"type": "video", "path": "a", "url": "b"}]}],
            "names its medium 2 times",
        ),
        ([{"role": "user", "content": [{"type": "video_url", "video_url": {}}]}], "needs a 'url'"),
        ([{"from": "robot", "value": ""}], "message 0: 'from' is 'robot'"),
    ],
)
def test_a_message_that_cannot_be_read_is_named(messages: object, says: str) -> None:
    with pytest.raises(PromptError, match=says.replace("(", r"\(")):
        read_messages(messages)


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (
            [{"role": "user", "content": "What moves?", "video": "a.mp4"}],
            "message 0: unknown key 'video'; known: role, content; a clip is a part of the content: "
            '{"type": "video", "path": "clip.mp4"}',
        ),
        ([{"role": "user", "content": "?", "images": ["a.png"]}], "message 0: unknown key 'images'"),
        (
            [{"from": "human", "value": "<video>", "path": "a.mp4"}],
            "message 0: unknown key 'path'; known: from, value, image, images, video, videos",
        ),
        (
            [{"role": "user", "content": [{"type": "video", "path": "a.mp4", "fps": 2}]}],
            "message 0, part 0: unknown key 'fps'; known: type, video, video_url, url, path, base64",
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "?", "video": "a.mp4"}]}],
            "message 0, part 0: unknown key 'video'; known: type, text; a clip is a part of the content",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "a", "detail": "low"}]}],
            "message 0, part 0: unknown key 'detail'",
        ),
    ],
)
def test_a_key_that_nobody_reads_is_refused_in_a_conversation_and_passed_over_in_a_sample(
    messages: object, says: str
) -> None:
    with pytest.raises(PromptError) as refusal:
        read_messages(messages, strict=True)
    assert says in str(refusal.value)
    assert len(read_messages(messages)) == 1


def test_what_clients_send_back_with_an_answer_is_no_unknown_key() -> None:
    conversation = [
        {"role": "user", "content": [{"type": "image_url", "image_url": "a.png", "detail": "auto"}]},
        {"role": "assistant", "content": "A sign.", "refusal": None, "tool_calls": None, "annotations": []},
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Red.", "annotations": [], "logprobs": []}],
        },
    ]
    assert read_messages(conversation, strict=True) == read_messages(conversation)


A, B = Video(source="a.mp4"), Video(source="b.mp4")
PICTURE = Image(source="p.png")
WHY = Text(text="Why?")


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"value": "<video>\nWhy?", "video": "a.mp4"}, (A, WHY)),
        ({"value": "<image>\nWhy?", "video": "a.mp4"}, (A, WHY)),
        ({"value": "Why?", "video": "a.mp4"}, (A, WHY)),
        ({"value": "Why?\n<video>", "videos": ["a.mp4"]}, (WHY, A)),
        ({"value": "<video>\n<video>\nWhy?", "videos": ["a.mp4", "b.mp4"]}, (A, B, WHY)),
        ({"value": "<video>\n<image>\nWhy?", "image": "p.png", "video": "a.mp4"}, (A, PICTURE, WHY)),
        ({"value": "<video>\nWhy?"}, (Video(), WHY)),
    ],
)
def test_media_beside_a_llava_message_take_the_places_of_its_placeholders(
    message: dict[str, object], parts: tuple[object, ...]
) -> None:
    (turn,) = read_messages([{"from": "human", **message}], strict=True)
    assert turn.parts == parts


def test_media_beside_a_llava_message_are_as_many_as_its_placeholders() -> None:
    message = {"from": "human", "value": "<video>\nWhy?", "videos": ["a.mp4", "b.mp4"]}
    with pytest.raises(PromptError, match=r"message 0: 1 <image> or <video> .*0 pictures and 2 clips"):
        read_messages([message], strict=True)


@pytest.mark.parametrize("value", [[{"type": "video", "path": "a.mp4"}], {"text": "Why?"}, None])
def test_a_llava_value_that_is_no_text_is_refused_and_not_written_out(value: object) -> None:
    with pytest.raises(PromptError, match=r"message 0: 'value' is .*; expected text .* 'content'"):
        read_messages([{"from": "human", "value": value}])
