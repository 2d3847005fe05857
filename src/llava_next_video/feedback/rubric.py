"""What a judge is asked, and the score in what it replies."""

from __future__ import annotations

import hashlib
import re

from llava_next_video.feedback.questions import Asked

LONGEST_WORDS = 256
LOWEST, HIGHEST = 1, 5

SYSTEM = (
    "You grade answers to questions about videos. You are strict, brief and fair: a short right answer is "
    "better than a long one with a mistake in it."
)

# Source of the four criteria and the scale: LLaVA-Hound-DPO, arXiv 2404.01258; the words are our own.
RUBRIC = """{seen}
Question: {question}
{truth}Answer to grade: {answer}

Grade the answer on four counts:
- relevance: does it answer this question, and not another one?
- accuracy: is everything it states true of the video? A thing that the video does not show counts as wrong.
- clarity: can it be understood at once?
- completeness: is nothing missing that the question asks for?

5 means right and complete, 4 right with a small gap, 3 mostly right, 2 mostly wrong, 1 wrong.
Give the reason in one or two sentences. Then end with one line of exactly this form:
Score: <a whole number from 1 to 5>"""

VERSION = hashlib.sha256((SYSTEM + RUBRIC).encode()).hexdigest()[:12]

_SCORE = re.compile(r"\bscore\W{0,6}(\d+(?:\.\d+)?)", re.IGNORECASE)


def judge_prompt(asked: Asked, answer: str, *, sees: bool) -> str:
    """The question to a judge; one that `sees` has the media before it, another one reads the caption."""
    words = answer.split()
    seen = "Look at the video." if sees else f"What the video shows: {asked.caption or asked.truth}"
    truth = f"An answer known to be right: {asked.truth}\n" if asked.truth else ""
    return RUBRIC.format(seen=seen, question=asked.text, truth=truth, answer=" ".join(words[:LONGEST_WORDS]))


def read_score(reply: str) -> int | None:
    """The score in a judge's reply; None where it has none, or one that is not on the scale.

    >>> read_score("It names the wrong colour. Score: 2"), read_score("**Score:** 4/5")
    (2, 4)
    >>> read_score("Score: 9"), read_score("Score: 3.5"), read_score("A fine answer!")
    (None, None, None)
    """
    found = _SCORE.findall(reply)
    if not found or not found[-1].isdecimal() or not LOWEST <= int(found[-1]) <= HIGHEST:
        return None
    return int(found[-1])
