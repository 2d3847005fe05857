"""What may be said beside a question is what readers and the engine take."""

from __future__ import annotations

from dataclasses import fields

import pytest

from llava_next_video.assistant import Reader
from llava_next_video.assistant.wishes import Look, Wishes
from llava_next_video.engine import SamplingOptions
from llava_next_video.errors import ConfigError
from llava_next_video.long_video import ClipLayout, SlowFast, read_layout


def test_every_setting_of_the_engine_and_of_reading_can_be_wished_for() -> None:
    of_reading = {field.name for field in fields(Reader)} - {"processor", "limits"}
    of_the_engine = {field.name for field in fields(SamplingOptions)}
    assert Look.__optional_keys__ == of_reading
    assert Wishes.__optional_keys__ == of_reading | of_the_engine


@pytest.mark.parametrize("wish", ["frame", {"newline": "frame"}, SlowFast()])
def test_a_layout_is_a_record_or_a_sentence(wish: object) -> None:
    with pytest.raises(ConfigError, match=r"layout is .*; expected a ClipLayout such as .*, or None"):
        read_layout(wish)
    assert read_layout(ClipLayout(newline="frame")) == ClipLayout(newline="frame")
    assert read_layout(None) is None
