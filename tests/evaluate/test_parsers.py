"""Letters are found where the published parsers find them, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_next_video.evaluate.parsers import PARSERS

OPTIONS = ["A. star", "B. square", "C. ring", "D. cross"]

# By hand, from the published code: where they disagree is where scores of one model disagree.
FOUND = {
    "B": dict.fromkeys(PARSERS, "B"),
    "(C) ring": dict.fromkeys(PARSERS, "C"),
    "The best answer is D.": {
        "first-letter": "D",
        "ranked-letter": "D",
        "last-mention": "D",
        "first-mention": "D",
        "lone-letter": "D",
        "any-letter": "D",
    },
    "Because it turns: B": {
        "first-letter": "B",
        "ranked-letter": "B",
        "last-mention": "B",
        "first-mention": "B",
        "lone-letter": "B",
        "any-letter": "B",
    },
    "Both (A) and (C) could be, so (C)": {
        "first-letter": "B",
        "ranked-letter": "C",
        "last-mention": "C",
        "first-mention": "A",
        "lone-letter": "A",
        "any-letter": "A",
    },
    "It is a ring": {
        "first-letter": "",
        "ranked-letter": "",
        "last-mention": "",
        "first-mention": "",
        "lone-letter": "",
        "any-letter": "A",
    },
    "": dict.fromkeys(PARSERS, ""),
}


@pytest.mark.parametrize("answer", FOUND)
def test_each_parser_finds_what_the_published_one_finds(answer: str) -> None:
    assert {name: parse(answer, OPTIONS) for name, parse in PARSERS.items()} == FOUND[answer]


@given(st.text(st.sampled_from("ABCDE abc.,:()'the answer is\n-"), max_size=40), st.integers(2, 5))
def test_a_parser_gives_a_letter_or_nothing(answer: str, count: int) -> None:
    options = [f"thing {number}" for number in range(count)]
    for parse in PARSERS.values():
        assert parse(answer, options) in ("", *"ABCDE")
