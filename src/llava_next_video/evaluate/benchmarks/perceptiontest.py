"""Perception Test, multiple choice: skills and reasoning."""

from __future__ import annotations

from llava_next_video.evaluate.benchmark import Benchmark, Protocol, letter
from llava_next_video.evaluate.items import Fields, Item


def read(row: Fields) -> Item:
    """One row of the hub's table."""
    options, video = row.texts("options"), row.text("video_name")
    return Item(
        id=f"{video}/{row.text('question_id')}",
        video=video,
        questions=(row.text("question"),),
        options=options,
        truth=row.letter("answer_id", len(options)),
        groups={"area": row.text("area"), "reasoning": row.text("reasoning")},
    )


BENCHMARK = Benchmark(
    name="perceptiontest",
    source="arXiv 2305.13786; huggingface.co/datasets/lmms-eval/PerceptionTest_Val",
    rows="video_name, question_id, question, options, answer_id (0 to 2), area, reasoning",
    read=read,
    protocols=(
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/perceptiontest/val (perceptiontest_val_mc)",
            prompt=letter,
            parser="lone-letter",
            max_new_tokens=16,
            stop=("\n\n",),
        ),
    ),
)
