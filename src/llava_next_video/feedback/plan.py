"""What a feedback run is asked to do, and what of it is left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llava_next_video.errors import ConfigError
from llava_next_video.feedback.judges import Judge
from llava_next_video.feedback.questions import Asked
from llava_next_video.judging import Ledger

ANSWERS, VERDICTS = "answers.jsonl", "verdicts.jsonl"
CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How answers are drawn: who answers, and how freely.

    Attributes:
        model: The checkpoint's name, which tells the answers of one round from those of the next.
        answers: Answers to each question.
    """

    model: str
    answers: int = 6
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 256
    frames: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.answers < 2:
            raise ConfigError(f"{self.answers} answer to each question; a pair needs at least 2")
        if not self.temperature > 0:
            raise ConfigError(
                f"temperature {self.temperature:g} gives equal answers; take one above 0, e.g. 1"
            )

    def key(self, asked: Asked) -> str:
        """The name of the answers to a question that are drawn so."""
        return hashlib.sha256(json.dumps([asked.key, asdict(self)]).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is left to do; tokens of text are estimated at four characters each."""

    questions: int
    to_answer: int
    answers: int
    new_tokens: int
    verdicts: int
    judge_tokens: int

    @property
    def text(self) -> str:
        """The plan as people read it."""
        return (
            f"{self.questions:,} questions, {self.to_answer:,} without answers: {self.answers:,} to sample, "
            f"at most {self.new_tokens:,} tokens\n"
            f"at most {self.verdicts:,} calls of the judge, about {self.judge_tokens:,} tokens to read"
        )


def plan(questions: Sequence[Asked], output: Path, *, sampled: Sampled, judge: Judge) -> Plan:
    """What a run would do now; nothing is asked and nothing written.

    Raises:
        ConfigError: A question that the judge cannot judge.
    """
    for asked in questions:
        judge.refuse(asked)
    said = said_before(Ledger(output / ANSWERS))
    known = scores_before(Ledger(output / VERDICTS))
    fresh = verdicts = characters = 0
    for asked in questions:
        texts = said.get(sampled.key(asked))
        if texts is None:
            fresh += 1
            verdicts += sampled.answers
            longest = CHARACTERS_A_TOKEN * sampled.max_new_tokens
            characters += sampled.answers * (len(judge.prompt(asked, "")) + longest)
            continue
        open_texts = [text for text in dict.fromkeys(texts) if verdict_key(judge, asked, text) not in known]
        verdicts += len(open_texts)
        characters += sum(len(judge.prompt(asked, text)) for text in open_texts)
    return Plan(
        questions=len(questions),
        to_answer=fresh,
        answers=fresh * sampled.answers,
        new_tokens=fresh * sampled.answers * sampled.max_new_tokens,
        verdicts=verdicts,
        judge_tokens=characters // CHARACTERS_A_TOKEN,
    )


def verdict_key(judge: Judge, asked: Asked, text: str) -> str:
    """The name of a verdict: it changes with the judge, its version, the question and the answer."""
    told = json.dumps([judge.name, judge.version, asked.key, text])
    return hashlib.sha256(told.encode()).hexdigest()[:24]


def said_before(answers: Ledger) -> dict[str, list[str]]:
    """Answers by the key of their question."""
    return {row["key"]: row["answers"] for row in answers.rows}


def scores_before(verdicts: Ledger) -> dict[str, float]:
    """Scores by the key of their verdict; attempts that gave none are left out."""
    return {row["key"]: row["score"] for row in verdicts.rows if "score" in row}
