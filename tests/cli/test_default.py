"""Without --model the package's own checkpoint answers, and is right about simple scenes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from llava_next_video import VideoAssistant
from llava_next_video.checkpoint_name import default_checkpoint
from llava_next_video.evaluate import examine_world
from llava_next_video.media import write_clip
from llava_next_video.messages import Video


@pytest.fixture(scope="module")
def assistant() -> VideoAssistant:
    return VideoAssistant.load()


def test_the_file_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in default_checkpoint().iterdir()) < 12 * 2**20


def disc(colour: tuple[int, int, int], way: str, size: int = 120) -> np.ndarray:
    """24 frames in which a drawn disc crosses a plain ground; not drawn by the toy world."""
    rows, columns = np.mgrid[:size, :size]
    frames = np.full((24, size, size, 3), 128, np.uint8)
    for number, frame in enumerate(frames):
        along = 30 + number * (size - 60) / 23
        along = along if way in ("right", "down") else size - along
        x, y = (along, size / 2) if way in ("left", "right") else (size / 2, along)
        frame[(rows - y) ** 2 + (columns - x) ** 2 < 18**2] = colour
    return frames


def test_a_disc_that_the_world_did_not_draw_is_seen_to_move(
    assistant: VideoAssistant, tmp_path: Path
) -> None:
    answers = [
        assistant.ask(
            Video(source=write_clip(tmp_path / f"{way}.mp4", disc((220, 30, 30), way), 12)),
            "Which way does the red circle move?",
            max_new_tokens=8,
        ).text
        for way in ("left", "right", "up", "down")
    ]
    assert answers == ["left", "right", "up", "down"]


def drawn(shape: str, colour: str, way: str, ground: str, size: int) -> list[Image.Image]:
    """20 frames of a shape that a drawing program draws, moving over a plain ground."""
    frames = []
    for number in range(20):
        frame = Image.new("RGB", (size, size), ground)
        along = size * (0.25 + 0.5 * number / 19)
        along = along if way in ("right", "down") else size - along
        x, y = (along, size / 2) if way in ("left", "right") else (size / 2, along)
        pen, radius = ImageDraw.Draw(frame), 0.14 * size
        if shape == "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        elif shape == "square":
            pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
        else:
            pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
        frames.append(frame)
    return frames


@pytest.mark.slow
def test_plain_clips_of_a_drawing_program_are_understood(assistant: VideoAssistant, tmp_path: Path) -> None:
    dice, asked = random.Random("plain clips"), []
    for number in range(48):
        shape, way = ("circle", "square", "triangle")[number % 3], ("left", "right", "up", "down")[number % 4]
        colour, ground = (
            dice.choice(("red", "green", "blue", "yellow")),
            dice.choice(("black", "gray", "white")),
        )
        if (colour, ground) == ("yellow", "white"):
            ground = "black"
        codec = dice.choice(("h264", "vp9", "mpeg4"))
        path = tmp_path / f"{number}.{'webm' if codec == 'vp9' else 'mp4'}"
        pictures = drawn(shape, colour, way, ground, dice.choice((96, 160, 240)))
        clip = Video(
            source=write_clip(path, np.stack([np.asarray(one) for one in pictures]), 10, codec=codec)
        )
        asked.append(((clip, f"What color is the {shape}?"), colour))
        asked.append(((clip, f"Which way does the {colour} {shape} move?"), way))
    answers = [answer.text for answer in assistant.ask_many([q for q, _ in asked], max_new_tokens=8)]
    right = [said == truth for said, (_, truth) in zip(answers, asked, strict=True)]
    assert sum(right[0::2]) >= 0.9 * len(right[0::2])
    assert sum(right[1::2]) >= 0.9 * len(right[1::2])


@pytest.mark.slow
def test_what_the_shipped_checkpoint_knows_stays_known(assistant: VideoAssistant) -> None:
    report = examine_world(assistant, clips=200, seed=random.Random("shipped").randrange(10**6))
    least = {"no object": 0.95, "1 object": 0.96, "2 objects": 0.92, "3 objects": 0.84}
    shares = {group: report.overall(group).share for group in least}
    assert {group: share >= least[group] for group, share in shares.items()} == dict.fromkeys(least, True), (
        shares
    )
    one = report.scores["1 object"]
    known = ("colour", "shape", "count", "existence", "position", "yes or no", "action", "caption")
    assert {family: one[family].share >= 0.95 for family in known} == dict.fromkeys(known, True)
