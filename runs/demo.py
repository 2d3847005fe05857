"""Film a scene that nobody has seen, ask about it, and show the answers beside the truth."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llava_next_video import VideoAssistant
from llava_next_video.cli.ask import quiet
from llava_next_video.media import Sampling, contact_sheet, read_clip
from llava_next_video.world import ask, caption, film, random_film, random_scene

QUESTIONS = 3
FAMILIES = frozenset({"colour", "shape", "direction", "action", "caption", "count"})


def main() -> None:
    """Run the demo in a folder that stays, so that the clip and its contact sheet can be looked at."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else time.time_ns() % 2**32
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="llava-next-video-demo-"))
    scene = random_scene(rng, things=1)
    clip = film(scene, folder / "scene.mp4", random_film(rng, scene))
    console = Console()
    quiet()
    console.print(f"A new scene (seed {seed}): {clip}")

    assistant = VideoAssistant.load()
    questions = ask(scene, rng, families=FAMILIES)[:QUESTIONS]
    answers = list(assistant.ask_many([(clip, one.text) for one in questions], max_new_tokens=48))
    table = Table("question", "answer", "truth")
    for question, answer in zip(questions, answers, strict=True):
        table.add_row(question.text, answer.text, question.answer)
    console.print(table)
    console.print(f"The truth about the scene: {caption(scene)}")
    sheet = folder / "contact-sheet.png"
    contact_sheet(read_clip(clip, Sampling()), question=questions[0].text, answer=answers[0].text).save(sheet)
    console.print(f"What the model saw: {sheet}")


if __name__ == "__main__":
    main()
