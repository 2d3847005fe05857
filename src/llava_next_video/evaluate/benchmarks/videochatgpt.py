"""Video-ChatGPT's benchmark: five axes, from 0 to 5."""

from __future__ import annotations

from llava_next_video.errors import DataError
from llava_next_video.evaluate.benchmark import Benchmark, Protocol, as_asked
from llava_next_video.evaluate.items import Fields, Item
from llava_next_video.evaluate.rubrics import (
    CONSISTENCY,
    CONTEXT,
    CORRECTNESS,
    DESCRIPTION,
    DETAIL,
    TEMPORAL,
    Rubric,
)

SOURCE = "arXiv 2306.05424; huggingface.co/datasets/lmms-eval/VideoChatGPT"
ANSWER_TOKENS = 1024


def read(row: Fields) -> Item:
    """One row of `generic_qa.json`, `temporal_qa.json` or the hub's tables."""
    video, question = row.text("video_name"), row.text("question", "Q")
    return Item(
        id=row.text("question_id") if "question_id" in row else f"{video}/{row.number}",
        video=video,
        questions=(question,),
        truth=row.text("answer", "A"),
    )


def read_pair(row: Fields) -> Item:
    """One row of `consistency_qa.json`: two questions with one answer."""
    questions = row.text("question_1", "Q1"), row.text("question_2", "Q2")
    if "None" in questions:
        raise DataError(
            f"{row.place}: holds one of its two questions; give consistency_qa.json, which has both in a row"
        )
    video = row.text("video_name")
    return Item(id=f"{video}/{row.number}", video=video, questions=questions, truth=row.text("answer", "A"))


def _protocols(*rubrics: Rubric, script: str) -> tuple[Protocol, ...]:
    return (
        Protocol(
            name="video-chatgpt",
            source=f"Video-ChatGPT, quantitative_evaluation/{script}",
            prompt=as_asked,
            rubrics=rubrics,
            max_new_tokens=ANSWER_TOKENS,
        ),
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/videochatgpt; an answer without a verdict scores 0 there",
            prompt=as_asked,
            rubrics=rubrics,
            max_new_tokens=ANSWER_TOKENS,
            stop=("\n\n",),
        ),
    )


GENERIC = Benchmark(
    name="videochatgpt-generic",
    source=f"{SOURCE} (Generic)",
    rows="video_name, question (or Q), answer (or A)",
    read=read,
    protocols=_protocols(
        CORRECTNESS, DETAIL, CONTEXT, script="evaluate_benchmark_{1_correctness,2_detailed,3_context}.py"
    ),
)
TEMPORAL_ORDER = Benchmark(
    name="videochatgpt-temporal",
    source=f"{SOURCE} (Temporal)",
    rows="video_name, question (or Q), answer (or A)",
    read=read,
    protocols=_protocols(TEMPORAL, script="evaluate_benchmark_4_temporal.py"),
)
CONSISTENT = Benchmark(
    name="videochatgpt-consistency",
    source=f"{SOURCE} (Consistency)",
    rows="video_name, question_1 and question_2 (or Q1, Q2), answer (or A)",
    read=read_pair,
    protocols=_protocols(CONSISTENCY, script="evaluate_benchmark_5_consistency.py"),
)
DESCRIBED = Benchmark(
    name="video-detail",
    source="huggingface.co/datasets/lmms-lab/VideoDetailDescription, on the videos of Video-ChatGPT",
    rows="video_name, question, answer",
    read=read,
    protocols=(
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/video_detail_description",
            prompt=as_asked,
            rubrics=(DESCRIPTION,),
            max_new_tokens=ANSWER_TOKENS,
            stop=("\n\n",),
        ),
    ),
)
