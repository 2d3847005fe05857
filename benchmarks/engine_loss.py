"""How much do 8-bit weights and activations cost in right answers?

    python benchmarks/engine_loss.py CHECKPOINT --clips 60

The toy world's examination, taken twice on the same fresh clips: in float32 and in 8 bits. Beside the scores
stands the mean distance between the log probabilities that both give to the likeliest tokens at each step, as
long as they choose the same ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from llava_next_video.assistant import VideoAssistant
from llava_next_video.evaluate import Score, examine_world
from llava_next_video.world import ask, film
from llava_next_video.world.write import clip_scene
from record import record


def overall(assistant: VideoAssistant, clips: int, seed: int) -> dict[str, Any]:
    """Right answers of all asked, over all groups."""
    report = examine_world(assistant, clips=clips, seed=seed)
    scores: list[Score] = [report.overall(group) for group in report.scores]
    right, asked = sum(score.right for score in scores), sum(score.asked for score in scores)
    return {"right": right, "asked": asked, "share": right / asked}


def distance(exact: VideoAssistant, rounded: VideoAssistant, clips: int, seed: int) -> float:
    """Mean distance of log probabilities of tokens that are among the five likeliest of both."""
    apart = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(clips):
            scene, how, dice = clip_scene(seed, number, 2)
            clip = film(scene, Path(folder) / f"{number}.mp4", how)
            question = next(iter(ask(scene, dice))).text
            answers = [one.ask(clip, question, logprobs=5, max_new_tokens=24) for one in (exact, rounded)]
            for ours, theirs in zip(*(answer.logprobs for answer in answers), strict=False):
                one, other = dict(ours.top), dict(theirs.top)
                apart += [abs(one[id] - other[id]) for id in one.keys() & other.keys()]
                if ours.id != theirs.id:
                    break
    return mean(apart)


def main() -> None:
    """Measure one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2026)
    asked = parser.parse_args()
    exact = VideoAssistant.load(asked.checkpoint, device="cpu", dtype="float32")
    rounded = VideoAssistant.load(asked.checkpoint, device="cpu", quantize="int8")
    figures = {
        "clips": asked.clips,
        "float32": overall(exact, asked.clips, asked.seed),
        "int8": overall(rounded, asked.clips, asked.seed),
        "mean_distance_of_log_probabilities": distance(exact, rounded, min(asked.clips, 20), asked.seed + 1),
    }
    figures["points_lost"] = 100 * (figures["float32"]["share"] - figures["int8"]["share"])
    print(figures)
    print(record("engine_loss", figures))


if __name__ == "__main__":
    main()
