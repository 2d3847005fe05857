"""Values of the wrong kind are a sentence, not a traceback; seen without the type checks of the tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from llava_next_video import AutoProcessor, ClipLayout, RopeScaling, Sampling, SlowFast, VideoAssistant
from llava_next_video.errors import LlavaNextVideoError

checkpoint, clip = sys.argv[1:]
assistant, processor = VideoAssistant.load(checkpoint), AutoProcessor.from_pretrained(checkpoint)
tries = {
    "frames": lambda: assistant.ask(clip, "?", frames=2.5),
    "frames in words": lambda: assistant.ask(clip, "?", frames="8"),
    "a sampling": lambda: Sampling(frames=True),
    "a rate": lambda: Sampling(how="fps", per_second="2"),
    "num_frames": lambda: processor("<video>", videos=clip, num_frames=2.5),
    "fps": lambda: processor("<video>", videos=clip, fps="2"),
    "max_length": lambda: processor("hello", max_length="9"),
    "tokens": lambda: assistant.ask(clip, "?", max_new_tokens=2.5),
    "a rope": lambda: assistant.ask(clip, "?", rope="wide"),
    "a kind of rope": lambda: RopeScaling(kind="llama3"),
    "a factor": lambda: RopeScaling(factor="2"),
    "slow frames": lambda: SlowFast(every=2.5),
    "a newline": lambda: ClipLayout(newline="row"),
    "a layout": lambda: assistant.ask(clip, "?", layout="frame"),
    "slow-fast": lambda: ClipLayout(slow_fast=10),
    "no question": lambda: assistant.ask(clip, None),
    "no pair": lambda: list(assistant.ask_many([clip])),
    "keys": lambda: list(assistant.ask_many([{"media": clip, "question": "?"}])),
}
told = {}
for name, attempt in tries.items():
    try:
        attempt()
    except LlavaNextVideoError as error:
        told[name] = str(error)
print(json.dumps(told))
"""


@pytest.mark.slow
def test_values_of_the_wrong_kind_are_refused_in_a_sentence(tiny_checkpoint: Path, square_clip: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_checkpoint), str(square_clip)],
        capture_output=True,
        text=True,
        check=True,
    )
    count = "expected a whole number, at least 1"
    pair = "expected a pair of media and text such as ('clip.mp4', 'What moves?')"
    rate = "sampling by fps needs per_second above 0, for instance 1.0; '2' was given"
    assert json.loads(done.stdout) == {
        "frames": f"sampling of 2.5 frames was asked for; {count}",
        "frames in words": f"sampling of '8' frames was asked for; {count}",
        "a sampling": f"sampling of True frames was asked for; {count}",
        "a rate": rate,
        "num_frames": f"sampling of 2.5 frames was asked for; {count}",
        "fps": rate,
        "max_length": "max_length is '9'; expected a whole number above 0, or None",
        "tokens": "max_new_tokens is 2.5; expected a whole number",
        "a rope": "rope is 'wide'; expected a factor such as 2.0, 'auto', a RopeScaling, or None",
        "a kind of rope": "unknown rope scaling 'llama3'; known: auto, linear, dynamic, yarn",
        "a factor": "rope factor '2' is below 1, or no number; it stretches the context, e.g. 2.5",
        "slow frames": "slow-fast with every=2.5 leaves no fast frames; give a whole number, 2 or more",
        "a newline": "unknown newline 'row'; known: no_token, one_token, frame, grid",
        "a layout": "layout is 'frame'; expected a ClipLayout such as ClipLayout(newline='frame') or "
        "ClipLayout(slow_fast=SlowFast(every=10)), or None",
        "slow-fast": "slow_fast is 10; expected SlowFast(every=10), or None",
        "no question": "the question is None; expected text such as 'What moves?'",
        "no pair": f"question 0 is '{square_clip}'; {pair}",
        "keys": f"question 0 is a mapping with media, question; {pair}",
    }
