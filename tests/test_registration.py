"""transformers' Auto classes give our classes once they are told to, and not before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
import llava_next_video
from llava_next_video import LlavaNextVideoForConditionalGeneration, LlavaNextVideoProcessor
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

def home(made):
    return type(made).__module__.split(".")[0], type(made).__name__

folder = sys.argv[1]
before = home(AutoConfig.from_pretrained(folder))
llava_next_video.register()
llava_next_video.register()
autos = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor)
after = [home(auto.from_pretrained(folder)) for auto in autos]
same = AutoTokenizer.from_pretrained(folder)("a b") == AutoProcessor.from_pretrained(folder).tokenizer("a b")
print(json.dumps([before, after, same]))
"""


@pytest.mark.slow
def test_auto_classes_load_ours_after_registration(tiny_checkpoint: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_checkpoint)], capture_output=True, text=True, check=True
    )
    before, after, same = json.loads(done.stdout)
    assert before == ["transformers", "LlavaNextVideoConfig"]  # importing us changes nothing
    assert after == [
        ["llava_next_video", "LlavaNextVideoConfig"],
        ["llava_next_video", "LlavaNextVideoModel"],
        ["llava_next_video", "LlavaNextVideoForConditionalGeneration"],
        ["llava_next_video", "LlavaNextVideoProcessor"],
    ]
    assert same
