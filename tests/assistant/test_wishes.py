"""What may be said beside a question is what readers and the engine take."""

from __future__ import annotations

from dataclasses import fields

from llava_next_video.assistant import Reader
from llava_next_video.assistant.wishes import Look, Wishes
from llava_next_video.engine import SamplingOptions


def test_every_setting_of_the_engine_and_of_reading_can_be_wished_for() -> None:
    of_reading = {field.name for field in fields(Reader)} - {"processor", "limits"}
    of_the_engine = {field.name for field in fields(SamplingOptions)}
    assert Look.__optional_keys__ == of_reading
    assert Wishes.__optional_keys__ == of_reading | of_the_engine
