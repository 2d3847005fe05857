"""From an answer to a letter, as the published harnesses do it.

Each gives a letter, or "" where it finds none, which counts as wrong. They disagree: that is why they have
names. Those of lmms-eval are tested against its own functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from llava_next_video.errors import ConfigError
from llava_next_video.evaluate.items import LETTERS

Parser = Callable[[str, Sequence[str]], str]
"""An answer and the options to a letter."""

# Two commas are missing in the published list, so two pairs of prefixes stand there as one each.
_VIDEOMME_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
    "The correct answer",
    "The correct option",
)


def first_letter(answer: str, options: Sequence[str]) -> str:
    """The first capital A to D behind usual openings.

    >>> first_letter("The best answer is C.", "ABCD"), first_letter("Best option: C", "ABCD")
    ('C', 'B')

    Source: Video-MME, `evaluation/eval_your_results.py`, `extract_characters_regex`; lmms-eval until 0.6.
    """
    text = answer.strip()
    for prefix in _VIDEOMME_PREFIXES:
        text = text.replace(prefix, "")
    found = re.search(r"[ABCD]", text)
    return found[0] if found else ""


# Of each the first place counts: that of "the answer is" may be behind that of "answer is".
_NOUNS = (
    "answer",
    "correct answer",
    "best answer",
    "correct option",
    "best option",
    "choice",
    "correct choice",
)
_OPENINGS = (
    *(f"{the}{noun} is" for noun in _NOUNS for the in ("", "the ")),
    *("my answer is", "my choice is"),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
_SHAPES = {"({})": 6, "{}.": 5, "{}:": 4, "{})": 3, "{} ": 2}


def ranked_letter(answer: str, options: Sequence[str]) -> str:
    """The letter in the most telling place: alone at the start, at the end, behind an opening, in brackets...

    Of equally telling places the last counts.

    >>> ranked_letter("Best option: C", "ABCD"), ranked_letter("It is (B), not A because", "ABCD")
    ('C', 'B')

    Source: lmms-eval 0.7, `tasks/_task_utils/mcq_extract.py`, `extract_mcq_answer`.
    """
    letters = LETTERS[: len(options)]
    bare = answer.strip()
    for mark in (",", ".", "!", "?", ";", ":", "'", '"'):
        bare = bare.strip(mark)
    if not answer.strip():
        return ""
    text = f" {bare} "
    found: list[tuple[int, int, str]] = []
    for shape, rank in _SHAPES.items():
        for letter in letters:
            if (place := text.rfind(shape.format(letter))) >= 0:
                found.append((rank, place, letter))
    lower = text.lower()
    for opening in _OPENINGS:
        start = lower.find(opening)
        if start < 0:
            continue
        for letter in letters:
            if (place := text.find(letter, start + len(opening))) >= 0:
                found.append((7, place, letter))
    core = text.strip()
    for letter in letters:
        if core.startswith(letter) and (len(core) == 1 or not core[1].isalpha()):
            found.append((10, 0, letter))
        if core.endswith(letter) and (len(core) == 1 or not core[-2].isalpha()):
            found.append((9, len(text) - 1, letter))
    if not found:
        found = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(found, key=lambda one: one[:2])[2] if found else ""


def _mentions(answer: str, options: Sequence[str]) -> tuple[str, str]:
    text = answer
    for mark in (",", ".", "!", "?", ";", ":", "'"):
        text = text.strip(mark)
    return f" {text} ", LETTERS[: len(options)]


def _named_options(text: str, options: Sequence[str]) -> list[tuple[int, str]]:
    """Places and letters of options that are said in full, in an answer of more than five words."""
    if len(text.split()) <= 5:
        return []
    lower = text.lower()
    told = zip(LETTERS, (option.strip().lower() for option in options), strict=False)
    return [(lower.rfind(option), letter) for letter, option in told if option in lower]


def last_mention(answer: str, options: Sequence[str]) -> str:
    """The last letter in brackets; else the last with a space behind; else with a full stop; else in words.

    >>> last_mention("(A) or rather (B)", ["one", "two"]), last_mention("I see nothing", ["one", "two"])
    ('B', '')

    Source: lmms-eval, `tasks/nextqa/utils.py`, `parse_multi_choice_response` (from MMMU). Where that finds
    nothing it draws a letter; here that is no letter, so that a score can be had twice.
    """
    text, letters = _mentions(answer, options)
    for shape, sought in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        said = [letter for letter in letters if shape.format(letter) in text]
        if said:
            return max(said, key=lambda letter: (text.rfind(sought.format(letter)), -letters.index(letter)))
    named = _named_options(text, options)
    return max(named, key=lambda one: (one[0], -letters.index(one[1])))[1] if named else ""


def first_mention(answer: str, options: Sequence[str]) -> str:
    """The letter that is mentioned first: in brackets, with a space or a full stop behind; else in words.

    >>> first_mention("(A) or rather (B)", ["one", "two"])
    'A'

    Source: lmms-eval, `tasks/egoschema/utils.py`, `parse_multi_choice_response`, which draws a letter where
    it finds none; here that is no letter.
    """
    text, letters = _mentions(answer, options)
    places = [
        (text.rfind(shape.format(letter)), letter)
        for shape in ("({})", "{} ", "{}.")
        for letter in letters
        if shape.format(letter) in text
    ]
    found = places or _named_options(text, options)
    return min(found, key=lambda one: one[0])[1] if found else ""


def lone_letter(answer: str, options: Sequence[str]) -> str:
    """The first capital A to D that stands alone.

    >>> lone_letter("A man: B", "ABC"), lone_letter("Because", "ABC")
    ('A', '')

    Source: lmms-eval, `tasks/perceptiontest/val/utils.py`, `perceptiontest_val_process_results_mc`.
    """
    found = re.search(r"\b([A-D])\b", answer.strip())
    return found[1] if found else ""


_MARKS = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?")
_LONE_STOPS = 32  # re.UNICODE, which is passed in the place of the count


def any_letter(answer: str, options: Sequence[str]) -> str:
    """A letter A to E that stands alone, large or small, once marks are taken away.

    >>> any_letter("(b) The star", "AB"), any_letter("It is a star", "AB")
    ('B', 'A')

    Source: lmms-eval, `tasks/mvbench/utils.py`, `mcq_acc` (which takes the article for an option).
    """
    if found := re.match(r"^([A-E])\.\s*(.+)$", answer.strip(), re.IGNORECASE):
        return found[1].upper()
    given = answer.replace("\n", " ").replace("\t", " ").strip()
    text, numbers = given, re.search(r"(\d)(,)(\d)", given) is not None
    for mark in (*_MARKS, "!"):
        apart = f"{mark} " in given or f" {mark}" in given
        text = text.replace(mark, "" if apart or numbers else " ")
    text = re.sub(r"(?!<=\d)(\.)(?!\d)", "", text, count=_LONE_STOPS)
    text = text.strip("'").strip('"').strip(")").strip("(").strip().lower()
    found = re.search(r"\b([A-E])\b", text, re.IGNORECASE)
    return found[1].upper() if found else ""


PARSERS: Mapping[str, Parser] = {
    "first-letter": first_letter,
    "ranked-letter": ranked_letter,
    "last-mention": last_mention,
    "first-mention": first_mention,
    "lone-letter": lone_letter,
    "any-letter": any_letter,
}


def refuse_parser(name: str, *, marked_by_judge: bool) -> None:
    """Raise where a parser does not exist, or would not be asked.

    Raises:
        ConfigError: One of the two.
    """
    if marked_by_judge:
        raise ConfigError(f"open answers are marked by a judge; the parser {name!r} would be ignored")
    if name not in PARSERS:
        raise ConfigError(f"unknown parser {name!r}; known: {', '.join(PARSERS)}")
