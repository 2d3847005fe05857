"""The mean of two checkpoints' weights, in half precision, as a checkpoint like the first."""

import argparse
import shutil
from pathlib import Path

import torch

from llava_next_video import LlavaNextVideoForConditionalGeneration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="how much the second counts, of 1")
    given = parser.parse_args()
    mixed, other = (
        LlavaNextVideoForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        for folder in (given.first, given.second)
    )
    with torch.no_grad():
        for mine, its in zip(mixed.parameters(), other.parameters(), strict=True):
            mine.lerp_(its, given.share)
    mixed.half().save_pretrained(given.out)
    (given.out / "model.safetensors").chmod(0o644)
    for file in given.first.iterdir():
        if not (given.out / file.name).exists():
            shutil.copyfile(file, given.out / file.name)


if __name__ == "__main__":
    main()
