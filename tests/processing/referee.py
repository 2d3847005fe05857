"""What transformers' own processor makes of a folder and media: run in a process that has torchvision.

python referee.py FOLDER IN.npz OUT.npz

IN holds clips as arrays whose names end in JSON settings, and the media of `PROMPT` as `clip` and `picture`.
OUT gets the pixels of each clip under its name, and the inputs of the prompt.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from referees import borrow_torchvision

PROMPT = "USER: <video>\n<image>Why? ASSISTANT:"


def main(folder: str, given: str, made: str) -> None:
    """Answer every question of the file."""
    if not borrow_torchvision():
        sys.exit("torchvision is not at hand")
    from transformers import LlavaNextVideoProcessor, LlavaNextVideoVideoProcessor

    media = dict(np.load(given))
    clip, picture = media.pop("clip"), media.pop("picture")
    out = {
        name: LlavaNextVideoVideoProcessor(**json.loads(name.split("|")[1]))(clips, return_tensors="np")[
            "pixel_values_videos"
        ]
        for name, clips in media.items()
    }
    processor = LlavaNextVideoProcessor.from_pretrained(folder)
    inputs = processor(text=PROMPT, images=picture, videos=clip, return_tensors="np")
    talk = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Why?"}]}]
    out["template"] = np.array(processor.apply_chat_template(talk, add_generation_prompt=True))
    np.savez(made, **out, **inputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
