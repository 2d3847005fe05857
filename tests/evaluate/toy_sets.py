"""Clips of the toy world, asked about in the published format of every benchmark."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from llava_next_video.world import ask, caption, film
from llava_next_video.world.write import clip_scene

SEED = 5
LETTERS = "ABCDE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """A question about a toy clip: five options without letters, the right one among them."""

    video: str
    question: str
    options: tuple[str, ...]
    answer: str
    caption: str

    def right(self, count: int = 5) -> int:
        """Place of the answer among the first so many options."""
        return self.options[:count].index(self.answer)


def film_toys(folder: Path, clips: int = 3, each: int = 2) -> list[Toy]:
    """Film some clips into a folder; the answers stand in turn at A, B, C, A, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    toys: list[Toy] = []
    for number in range(clips):
        scene, how, dice = clip_scene(SEED, number, 1 + number % 3)
        film(scene, folder / f"toy{number}.mp4", how)
        questions = [one for one in ask(scene, dice, captions=False) if len({*one.rivals, one.answer}) > 4]
        for question in questions[:each]:
            wrong = [rival for rival in dict.fromkeys(question.rivals) if rival != question.answer][:4]
            place = len(toys) % 3
            options = (*wrong[:place], question.answer, *wrong[place:])
            toys.append(
                Toy(
                    video=f"toy{number}",
                    question=question.text,
                    options=options,
                    answer=question.answer,
                    caption=caption(scene),
                )
            )
    return toys


def lettered(options: Sequence[str]) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]


def videomme(toy: Toy, number: int) -> dict[str, Any]:
    return {
        "video_id": toy.video[-1:].zfill(3),
        "duration": ("short", "medium", "long")[int(toy.video[-1]) % 3],
        "domain": "Knowledge",
        "sub_category": "Technology",
        "url": "https://www.youtube.com/watch?v=none",
        "videoID": toy.video,
        "question_id": f"{toy.video[-1:].zfill(3)}-{number}",
        "task_type": ("Counting Problem", "Object Recognition")[number % 2],
        "question": toy.question,
        "options": lettered(toy.options[:4]),
        "answer": LETTERS[toy.right(4)],
    }


def mvbench(toy: Toy, number: int) -> dict[str, Any]:
    return {
        "video": f"{toy.video}.mp4",
        "question": toy.question,
        "candidates": list(toy.options[:3]),
        "answer": toy.answer,
    }


def nextqa(toy: Toy, number: int) -> dict[str, Any]:
    options = {f"a{place}": option for place, option in enumerate(toy.options)}
    counts = {"frame_count": 16, "width": 100, "height": 100}
    asked = {"question": toy.question, "answer": toy.right(), "qid": number, "type": ("CW", "TN")[number % 2]}
    return {"video": toy.video, **counts, **asked, **options}


def egoschema(toy: Toy, number: int) -> dict[str, Any]:
    return {
        "question_idx": str(number),
        "question": toy.question,
        "video_idx": toy.video,
        "option": lettered(toy.options),
        "answer": str(toy.right()),
    }


def perceptiontest(toy: Toy, number: int) -> dict[str, Any]:
    return {
        "video_name": toy.video,
        "question": toy.question,
        "question_id": str(number),
        "options": list(toy.options[:3]),
        "answer_id": str(toy.right(3)),
        "area": ("Physics", "Memory")[number % 2],
        "reasoning": "Descriptive",
        "tag": ["Object recognition"],
    }


def activitynetqa(toy: Toy, number: int) -> dict[str, Any]:
    return {
        "video_name": toy.video,
        "question": toy.question.rstrip("?.").lower(),
        "question_id": f"v_{toy.video}_{number}",
        "answer": toy.answer,
        "type": str(number % 9),
    }


def video_qa(toy: Toy, number: int) -> dict[str, Any]:
    return {"id": number, "video_id": int(toy.video[-1]), "question": toy.question, "answer": toy.answer}


def tgifqa(toy: Toy, number: int) -> dict[str, Any]:
    return {
        "gif_name": toy.video,
        "question": toy.question,
        "answer": toy.answer,
        "type": "Q",
        "vid_id": f"F{number}",
    }


def generic(toy: Toy, number: int) -> dict[str, Any]:
    return {"video_name": toy.video, "Q": toy.question, "A": toy.answer}


def consistency(toy: Toy, number: int) -> dict[str, Any]:
    again = f"Once more: {toy.question}"
    return {"video_name": toy.video, "Q1": toy.question, "Q2": again, "A": toy.answer}


def described(toy: Toy, number: int) -> dict[str, Any]:
    return {"video_name": toy.video, "question": "Describe the video.", "answer": toy.caption}


FORMATS: dict[str, tuple[str, Callable[[Toy, int], dict[str, Any]]]] = {
    "videomme": ("test.parquet", videomme),
    "mvbench": ("object_existence.json", mvbench),
    "nextqa": ("mc.csv", nextqa),
    "egoschema": ("subset.parquet", egoschema),
    "perceptiontest": ("val.parquet", perceptiontest),
    "activitynetqa": ("test.jsonl", activitynetqa),
    "msrvttqa": ("test_qa.json", video_qa),
    "msvdqa": ("test_qa.json", video_qa),
    "tgifqa": ("Test_frameqa_question.csv", tgifqa),
    "videochatgpt-generic": ("generic_qa.json", generic),
    "videochatgpt-temporal": ("temporal_qa.json", generic),
    "videochatgpt-consistency": ("consistency_qa.json", consistency),
    "video-detail": ("test.parquet", described),
}


def write_set(name: str, toys: Sequence[Toy], folder: Path) -> Path:
    """The table of a benchmark about some toys."""
    file, row = FORMATS[name]
    rows = [row(toy, number) for number, toy in enumerate(toys)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    match path.suffix:
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv":
            with path.open("w", newline="") as table:
                writer = csv.DictWriter(table, rows[0], delimiter="\t" if name == "tgifqa" else ",")
                writer.writeheader()
                writer.writerows(rows)
    return path
