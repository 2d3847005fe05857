"""Video-MME: four options, with or without subtitles."""

from __future__ import annotations

from llava_next_video.evaluate.benchmark import DIRECTLY, Benchmark, Protocol
from llava_next_video.evaluate.items import Fields, Item

OPENING = (
    "Select the best answer to the following multiple-choice question based on the video{}. Respond with "
    "only the letter (A, B, C, or D) of the correct option.\n"
)
SUBTITLED = " and the subtitles"
ENDING = "The best answer is:"


def read(row: Fields) -> Item:
    """One row of `lmms-eval/Video-MME`, which is the benchmark's own table."""
    options = row.texts("options")
    return Item(
        id=row.text("question_id"),
        video=row.text("videoID"),
        questions=(row.text("question"),),
        options=options,
        truth=row.letter("answer", len(options)),
        groups={
            "duration": row.text("duration"),
            "domain": row.text("domain"),
            "sub category": row.text("sub_category"),
            "task": row.text("task_type"),
        },
    )


def _written(item: Item, question: str, *, opening: str, ending: str) -> str:
    lines = "\n".join(item.options)
    return f"{OPENING.format(opening)}{question}\n{lines}\n{ending}"


def of_paper(item: Item, question: str) -> str:
    """The words of the paper, without subtitles."""
    return _written(item, question, opening="", ending=ENDING)


def with_subtitles(item: Item, question: str) -> str:
    """The words of the paper behind subtitles; lmms-eval has the same."""
    return _written(item, question, opening=SUBTITLED, ending=ENDING)


def of_lmms_eval(item: Item, question: str) -> str:
    """The words of lmms-eval, which speak of subtitles even where there are none."""
    return _written(item, question, opening=SUBTITLED, ending=DIRECTLY)


BENCHMARK = Benchmark(
    name="videomme",
    source="arXiv 2405.21075; huggingface.co/datasets/lmms-eval/Video-MME",
    rows="question_id, videoID, question, options, answer, duration, domain, sub_category, task_type",
    read=read,
    protocols=(
        Protocol(
            name="videomme-paper",
            source="Video-MME, README (prompt) and evaluation/eval_your_results.py (parser)",
            prompt=of_paper,
            prompt_with_subtitles=with_subtitles,
            parser="first-letter",
            max_new_tokens=16,
        ),
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/videomme, `default`",
            prompt=of_lmms_eval,
            prompt_with_subtitles=with_subtitles,
            parser="ranked-letter",
            max_new_tokens=16,
            stop=("\n\n",),
            subtitle_frames=32,
        ),
        Protocol(
            name="lmms-eval-llava",
            source="lmms-eval 0.7, tasks/videomme, `llava_vid`; the published LLaVA-NeXT-Video scores",
            prompt=with_subtitles,
            prompt_with_subtitles=with_subtitles,
            parser="ranked-letter",
            max_new_tokens=16,
            stop=("\n\n",),
            subtitle_frames=768,
        ),
    ),
)
