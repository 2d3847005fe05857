"""Streamed text is the text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llava_next_video.convert.tokenizer import SMALL_TALK, byte_level_bpe
from llava_next_video.processing.detokenize import TextStream

TOKENIZER = byte_level_bpe([SMALL_TALK], vocabulary=400)


def streamed(ids: list[int], tokenizer: PreTrainedTokenizerFast, stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(tokenizer, stop)
    return [*(stream.push(token) for token in ids), stream.finish()]


@settings(deadline=None)
@given(st.text())
def test_the_pieces_join_to_the_whole_text(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    whole = TOKENIZER.decode(ids, skip_special_tokens=True)
    assert "".join(streamed(ids, TOKENIZER)) == whole.strip()


@settings(deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=255 + 3)))
def test_bytes_that_form_no_character_join_to_what_decoding_gives(ids: list[int]) -> None:
    assert "".join(streamed(ids, TOKENIZER)) == TOKENIZER.decode(ids, skip_special_tokens=True).strip()


@settings(deadline=None)
@given(st.text(alphabet="abc \n"), st.lists(st.text(alphabet="abc ", min_size=1), max_size=3))
def test_the_text_ends_before_the_stop_string_that_is_complete_first(text: str, stop: list[str]) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    found = [(at + len(one), at) for one in stop if (at := text.lstrip().find(one)) >= 0]
    expected = text.lstrip()[: min(found)[1]] if found else text
    assert "".join(streamed(ids, TOKENIZER, tuple(stop))) == expected.strip()


def test_a_character_of_several_tokens_arrives_whole() -> None:
    ids = TOKENIZER("圆", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    assert streamed(ids, TOKENIZER) == ["", "", "圆", ""]


@pytest.mark.parametrize(("stop", "seen"), [(("END",), "one two"), (("absent",), "one two END three")])
def test_nothing_of_a_stop_string_is_shown(stop: tuple[str, ...], seen: str) -> None:
    ids = TOKENIZER("one two END three", add_special_tokens=False)["input_ids"]
    assert "".join(streamed(ids, TOKENIZER, stop)) == seen
