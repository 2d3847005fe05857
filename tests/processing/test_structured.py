"""Guides to JSON and to patterns, alone and in an engine."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import ConfigError, MissingExtraError, SamplingError
from llava_next_video.processing import structured
from llava_next_video.processing.structured import json_guide, regex_guide

SCENE = {
    "type": "object",
    "properties": {
        "shapes": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "shape": {"enum": ["circle", "square", "triangle"]},
                    "speed": {"type": "integer", "minimum": 0, "maximum": 99},
                    "name": {"type": "string", "maxLength": 6},
                },
                "required": ["shape", "speed", "name"],
                "additionalProperties": False,
            },
        },
        "moving": {"type": "boolean"},
    },
    "required": ["shapes", "moving"],
    "additionalProperties": False,
}


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_each_token_of_a_text_that_the_schema_allows_is_allowed_in_its_place(small_tokenizer):
    guide = json_guide(SCENE, small_tokenizer)
    text = '{"shapes": [{"shape": "square", "speed": 7, "name": "Bé"}], "moving": true}'
    written = ids(small_tokenizer, text)
    for place, token in enumerate(written):
        assert guide(written[:place])[token], small_tokenizer.decode(written[: place + 1])
    allowed = guide(written)
    assert allowed.nonzero().flatten().tolist() == [small_tokenizer.eos_token_id]


def test_what_the_schema_forbids_is_forbidden(small_tokenizer):
    guide = json_guide({"enum": ["yes", "no"]}, small_tokenizer)
    wrong = ids(small_tokenizer, "m")[0]
    assert not guide(ids(small_tokenizer, '"'))[wrong]
    with pytest.raises(SamplingError, match="left its grammar"):
        guide([*ids(small_tokenizer, '"'), wrong])


def test_a_guide_follows_several_answers_in_turn(small_tokenizer):
    written = ids(small_tokenizer, "aba"), ids(small_tokenizer, "abbb")
    shared = regex_guide("ab(a|bb)", small_tokenizer)
    for length in range(1, 5):
        for answer in written:
            alone = regex_guide("ab(a|bb)", small_tokenizer)(answer[:length])
            assert torch.equal(shared(answer[:length]), alone)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "string", "not": {"const": "no"}}, "Unimplemented keys"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"$ref": "http://example.com/schema.json"}, "does not fetch"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"enum": {1, 2}}, "cannot be read"),
        ({"not": {}, "x-guidance": {"lenient": True}}, "Unimplemented keys"),
    ],
)
def test_a_schema_that_cannot_be_promised_to_hold_is_refused(small_tokenizer, schema, reason):
    with pytest.raises(SamplingError, match=reason):
        json_guide(schema, small_tokenizer)


def test_a_broken_pattern_is_refused_with_its_reason(small_tokenizer):
    with pytest.raises(SamplingError, match="look-around"):
        regex_guide("a(?=b)", small_tokenizer)


def test_a_slow_tokenizer_is_refused(small_tokenizer):
    from transformers import ByT5Tokenizer

    with pytest.raises(ConfigError, match="ByT5Tokenizer"):
        json_guide({}, ByT5Tokenizer())


def test_without_the_library_the_extra_is_named(small_tokenizer, monkeypatch):
    monkeypatch.setitem(structured.importlib.sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"llava-next-video\[structured\]"):
        json_guide({}, small_tokenizer)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_random_network_writes_json_that_its_schema_allows(
    tiny_checkpoint: Path, square_clip: Path, temperature: float
):
    assistant = VideoAssistant.load(tiny_checkpoint)
    guides = [json_guide(SCENE, assistant.processor.tokenizer) for _ in range(3)]
    for seed, guide in enumerate(guides):
        answer = assistant.ask(
            square_clip, "What moves?", guide=guide, temperature=temperature, seed=seed, max_new_tokens=200
        )
        assert answer.finish_reason == "stop"
        said = json.loads(answer.text)
        assert list(said) == ["shapes", "moving"]
        assert isinstance(said["moving"], bool)
        assert 1 <= len(said["shapes"]) <= 2
        for one in said["shapes"]:
            assert one["shape"] in ("circle", "square", "triangle")
            assert one["speed"] in range(100)
            assert len(one["name"]) <= 6


def test_a_random_network_writes_what_a_pattern_allows(tiny_checkpoint: Path, square_clip: Path):
    assistant = VideoAssistant.load(tiny_checkpoint)
    pattern = r"(left|right), [0-9]{1,3} pixels"
    guide = regex_guide(pattern, assistant.processor.tokenizer)
    answer = assistant.ask(square_clip, "Where to?", guide=guide, max_new_tokens=60)
    assert re.fullmatch(pattern, answer.text)
    assert answer.finish_reason == "stop"
