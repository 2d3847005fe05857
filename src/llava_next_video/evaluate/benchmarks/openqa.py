"""Open questions with a short answer: a judge says yes or no."""

from __future__ import annotations

from llava_next_video.evaluate.benchmark import Benchmark, Protocol, as_asked
from llava_next_video.evaluate.items import Fields, Item
from llava_next_video.evaluate.rubrics import MATCH

PAPER = Protocol(
    name="video-chatgpt",
    source="Video-ChatGPT, quantitative_evaluation/evaluate_activitynet_qa.py",
    prompt=as_asked,
    rubrics=(MATCH,),
    max_new_tokens=64,
)

KINDS = (
    "motion",
    "spatial relation",
    "temporal relation",
    "yes/no",
    "colour",
    "object",
    "place",
    "number",
    "other",
)
"""What ActivityNet-QA numbers from 0. Source: arXiv 1906.02467, and MILVLG/activitynet-qa, README."""


def read_activitynet(row: Fields) -> Item:
    """One row of the hub's table; the videos are named `v_...`."""
    kind = row.text("type")
    known = kind.isdecimal() and int(kind) < len(KINDS)
    return Item(
        id=row.text("question_id"),
        video=f"v_{row.text('video_name').removeprefix('v_')}",
        questions=(row.text("question"),),
        truth=row.text("answer"),
        groups={"kind": KINDS[int(kind)] if known else kind},
    )


def capitalised(item: Item, question: str) -> str:
    """With a capital and a question mark, which the set itself leaves out."""
    return f"{question.capitalize()}? Answer the question using a single word or phrase."


ACTIVITYNET = Benchmark(
    name="activitynetqa",
    source="arXiv 1906.02467; huggingface.co/datasets/lmms-eval/ActivityNetQA",
    rows="question_id, video_name, question, answer, type",
    read=read_activitynet,
    protocols=(
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/activitynetqa; an answer without a verdict is a 'no' there",
            prompt=capitalised,
            rubrics=(MATCH,),
            max_new_tokens=64,
            stop=("ASSISTANT:", "\n\n"),
        ),
        PAPER,
    ),
)


def read_video_qa(row: Fields) -> Item:
    """One row of MSVD-QA's or MSRVTT-QA's JSON file: `video_id` 7 is the video `video7`, or `7`."""
    video = row.text("video") if "video" in row else f"video{row.text('video_id')}"
    word = row.text("question").partition(" ")[0].lower()
    return Item(
        id=row.text("id"),
        video=video,
        questions=(row.text("question"),),
        truth=row.text("answer"),
        groups={"asks": word if word in ("what", "who", "how", "when", "where") else "other"},
    )


MSRVTT = Benchmark(
    name="msrvttqa",
    source="D. Xu and others, Video Question Answering via Gradually Refined Attention, 2017 (MSRVTT-QA)",
    rows="id, video_id (or video), question, answer",
    read=read_video_qa,
    protocols=(PAPER,),
)
MSVD = Benchmark(
    name="msvdqa",
    source="D. Xu and others, Video Question Answering via Gradually Refined Attention, 2017 (MSVD-QA)",
    rows="id, video_id (or video), question, answer; vid7.avi is named by video",
    read=read_video_qa,
    protocols=(PAPER,),
)


def read_tgif(row: Fields) -> Item:
    """One row of `Test_frameqa_question.csv`, whose cells are parted by tabs."""
    return Item(
        id=row.text("vid_id") if "vid_id" in row else f"{row.text('gif_name')}/{row.number}",
        video=row.text("gif_name"),
        questions=(row.text("question"),),
        truth=row.text("answer"),
    )


TGIF = Benchmark(
    name="tgifqa",
    source="arXiv 1704.04497 (TGIF-QA, FrameQA)",
    rows="gif_name, question, answer, vid_id (may lack)",
    read=read_tgif,
    protocols=(PAPER,),
)
