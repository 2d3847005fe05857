"""MVBench and sets like it: a task a file, options in words."""

from __future__ import annotations

from pathlib import Path

from llava_next_video.errors import DataError
from llava_next_video.evaluate.benchmark import Benchmark, Protocol, letter, lettered
from llava_next_video.evaluate.items import LETTERS, Fields, Item

WATCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and "
    "movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n"
)


def read(row: Fields) -> Item:
    """One row of a task's JSON file; the file's name is the task's."""
    options, answer = row.texts("candidates"), row.text("answer")
    if answer not in [option.strip() for option in options]:
        raise DataError(f"{row.place}: the answer {answer!r} is none of the candidates {list(options)}")
    if "start" in row or "end" in row:
        raise DataError(
            f"{row.place}: asks about a part of its video (start, end); cut the video, point 'video' to the "
            "piece and take the two columns out, as the set's own pieces are"
        )
    task = Path(row.place.file).stem
    return Item(
        id=f"{task}/{row.number}",
        video=row.text("video"),
        questions=(row.text("question"),),
        options=options,
        truth=LETTERS[[option.strip() for option in options].index(answer)],
        groups={"task": task},
    )


def of_paper(item: Item, question: str) -> str:
    """The words of MVBench."""
    lines = lettered(item.options, "({}) {}")
    return f"{WATCH}Question: {question}\nOptions:\n{lines}\nOnly give the best option."


def of_lmms_eval(item: Item, question: str) -> str:
    """The words of lmms-eval."""
    lines = lettered(item.options, "({}) {}")
    return f"Question:{question}\nOption:\n{lines}\nOnly give the best option.\n"


BENCHMARK = Benchmark(
    name="mvbench",
    source="arXiv 2311.17005; huggingface.co/datasets/OpenGVLab/MVBench (json/*.json)",
    rows="video, question, candidates, answer",
    read=read,
    protocols=(
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/mvbench",
            prompt=of_lmms_eval,
            parser="any-letter",
            max_new_tokens=16,
            stop=("\n\n",),
        ),
        Protocol(
            name="mvbench-paper",
            source="MVBench, mvbench.ipynb; its `Best option:(` as the answer's beginning is left out",
            prompt=of_paper,
            parser="any-letter",
            max_new_tokens=16,
        ),
        Protocol(
            name="letter",
            source="LLaVA-NeXT, the prompt of its multiple choice in training",
            prompt=letter,
            parser="ranked-letter",
            max_new_tokens=16,
        ),
    ),
)
