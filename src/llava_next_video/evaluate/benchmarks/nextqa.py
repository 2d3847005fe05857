"""NExT-QA, multiple choice: why, how, when."""

from __future__ import annotations

from llava_next_video.evaluate.benchmark import Benchmark, Protocol, letter, lettered
from llava_next_video.evaluate.items import Fields, Item

OPTIONS = 5
KINDS = {"C": "causal", "T": "temporal", "D": "descriptive"}


def read(row: Fields) -> Item:
    """One row of `mc.csv` or of the hub's table."""
    kind, video, number = row.text("type"), row.text("video"), row.text("qid")
    return Item(
        id=f"{video}/{number}",
        video=video,
        questions=(row.text("question"),),
        options=tuple(row.text(f"a{option}") for option in range(OPTIONS)),
        truth=row.letter("answer", OPTIONS),
        groups={"kind": KINDS.get(kind[:1], kind), "type": kind},
    )


def bare(item: Item, question: str) -> str:
    """Question and options, and nothing said about how to answer."""
    return f"{question}\n{lettered(item.options)}"


BENCHMARK = Benchmark(
    name="nextqa",
    source="arXiv 2105.08276; huggingface.co/datasets/lmms-eval/NExTQA (MC)",
    rows="video, qid, type, question, a0 to a4, answer (0 to 4)",
    read=read,
    protocols=(
        Protocol(
            name="letter",
            source="LLaVA-NeXT, the prompt of its multiple choice in training",
            prompt=letter,
            parser="last-mention",
            max_new_tokens=16,
        ),
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/nextqa; no ending; a letter is drawn where none is found",
            prompt=bare,
            parser="last-mention",
            max_new_tokens=16,
            stop=("\n\n",),
        ),
    ),
)
