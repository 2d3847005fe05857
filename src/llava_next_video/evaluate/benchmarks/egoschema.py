"""EgoSchema: five options about three minutes."""

from __future__ import annotations

from llava_next_video.evaluate.benchmark import DIRECTLY, Benchmark, Protocol
from llava_next_video.evaluate.items import Fields, Item


def read(row: Fields) -> Item:
    """One row of the subset whose answers are public."""
    options = row.texts("option")
    video = row.text("video_idx")
    return Item(
        id=row.text("question_idx") if "question_idx" in row else video,
        video=video,
        questions=(row.text("question"),),
        options=options,
        truth=row.letter("answer", len(options)),
    )


def letter(item: Item, question: str) -> str:
    """The usual words of LLaVA's multiple choice; the options bring their letters."""
    lines = "\n".join(item.options)
    return f"{question}\n{lines}{DIRECTLY}"


BENCHMARK = Benchmark(
    name="egoschema",
    source="arXiv 2308.09126; huggingface.co/datasets/lmms-eval/egoschema (Subset)",
    rows="video_idx, question_idx (may lack), question, option, answer (0 to 4)",
    read=read,
    protocols=(
        Protocol(
            name="lmms-eval",
            source="lmms-eval 0.7, tasks/egoschema (egoschema_subset); a letter is drawn where none is found",
            prompt=letter,
            parser="first-mention",
            max_new_tokens=16,
            stop=("\n\n",),
        ),
    ),
)
