"""Captions to distrust, told by their text alone."""

from __future__ import annotations

import re
from typing import Literal

Flag = Literal["empty", "repetition", "truncated"]

LONGEST_PHRASE = 12
TIMES = 3
LEAST_WORDS = 6


def flags(caption: str, *, cut: bool) -> tuple[Flag, ...]:
    """What is suspicious about a caption; `cut` says that it ran into the limit on tokens.

    >>> flags("A dog runs over a meadow.", cut=False)
    ()
    >>> flags("A dog. A dog. A dog. A dog.", cut=True)
    ('repetition', 'truncated')
    >>> flags(" ", cut=False)
    ('empty',)
    """
    found: list[Flag] = []
    words = re.findall(r"\w+", caption.lower())
    if not words:
        found.append("empty")
    if repeats(words) or re.search(r"(.)\1{15}", caption):
        found.append("repetition")
    if cut:
        found.append("truncated")
    return tuple(found)


def repeats(words: list[str]) -> bool:
    """Whether a phrase of 1 to 12 words stands three times or more in a row, and fills six words or more.

    Single words must stand six times: "very, very, very" is English.

    >>> repeats("a red ball and a red ball and a red ball and".split())
    True
    >>> repeats("it goes up and down and up again".split())
    False
    """
    for length in range(1, LONGEST_PHRASE + 1):
        needed = max(TIMES * length, LEAST_WORDS)
        run = length
        for at in range(length, len(words)):
            run = run + 1 if words[at] == words[at - length] else length
            if run >= needed:
                return True
    return False
