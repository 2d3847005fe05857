"""Answers that must be JSON of a schema, or match a pattern.

The one door to `llguidance` (the extra `structured`). It knows the tokenizer and no network: a guide says
which ids may follow an answer, and whoever chooses ids asks it before each of them.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava_next_video.errors import ConfigError, MissingExtraError, SamplingError

Guide = Callable[[Sequence[int]], Bool[Tensor, " ids"]]

# One space behind a comma and a colon, as models write it, and none elsewhere: where any white space is
# allowed, a model that is not sure what to say can write it for ever.
_SPELLING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": False}

# A grammar needs the vocabulary as a trie of bytes, which takes up to a second to make.
_tries: WeakKeyDictionary[PreTrainedTokenizerBase, Any] = WeakKeyDictionary()
_making = threading.Lock()


def json_guide(schema: Mapping[str, object], tokenizer: PreTrainedTokenizerBase) -> Guide:
    """A guide to JSON that a schema allows, on one line; `{"type": "object"}` allows any object.

    A guide belongs to one request (its `n` answers included). An answer that ends by itself is complete; one
    that reaches `max_new_tokens` may be cut anywhere.

    Raises:
        SamplingError: The schema is none, or uses keywords that cannot be promised to hold (`not`, say).
        MissingExtraError: llguidance is not installed.
        ConfigError: The tokenizer cannot be guided.
    """
    matcher = _library().LLMatcher
    try:
        grammar = matcher.grammar_from_json_schema(json.dumps(schema), overrides=_SPELLING)
    except (TypeError, ValueError) as error:
        raise SamplingError(f"the JSON schema cannot be read: {error}") from error
    return _guide(grammar, tokenizer, "JSON schema")


def regex_guide(pattern: str, tokenizer: PreTrainedTokenizerBase) -> Guide:
    """A guide to texts that match a regular expression as a whole.

    Raises:
        SamplingError: No regular expression, or one that looks around or back.
        MissingExtraError: llguidance is not installed.
        ConfigError: The tokenizer cannot be guided.
    """
    return _guide(_library().LLMatcher.grammar_from_regex(pattern), tokenizer, "regular expression")


class _Guide:
    """Follows one answer, or a few in turn, through a grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._said: list[int] = []

    def __call__(self, answer: Sequence[int]) -> Bool[Tensor, " ids"]:
        """Which ids may come after the answer so far; one end token at least where it may end."""
        same = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._said, answer, strict=False))
        )
        if same < len(self._said):
            self._matcher.rollback(len(self._said) - same)
        self._said = list(answer)
        if not self._matcher.consume_tokens(self._said[same:]):
            raise SamplingError(f"the answer left its grammar: {_brief(self._matcher.get_error())}")
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise SamplingError(f"the grammar cannot be followed: {_brief(self._matcher.get_error())}")
        return torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(np.bool_))


def _guide(grammar: str, tokenizer: PreTrainedTokenizerBase, kind: str) -> Guide:
    trie = _trie(tokenizer)
    matcher = _library().LLMatcher(trie, grammar, log_level=0)
    if matcher.is_error():
        raise SamplingError(f"the {kind} cannot be followed: {_brief(matcher.get_error())}")
    return _Guide(matcher, trie.vocab_size)


def _trie(tokenizer: PreTrainedTokenizerBase) -> Any:
    """llguidance's view of a tokenizer, made once for each."""
    with _making:
        if tokenizer not in _tries:
            _library()
            try:
                _tries[tokenizer] = importlib.import_module("llguidance.hf").from_tokenizer(tokenizer)
            except Exception as error:
                raise ConfigError(
                    f"answers cannot be guided with a {type(tokenizer).__name__}: {_brief(str(error))}; "
                    "load it as a fast tokenizer"
                ) from error
        return _tries[tokenizer]


def _library() -> Any:
    try:
        return importlib.import_module("llguidance")
    except ImportError as error:
        raise MissingExtraError(
            "answers in JSON or of a pattern need llguidance; pip install 'llava-next-video[structured]'"
        ) from error


def _brief(message: str) -> str:
    """One sentence of an error that may draw where it is.

    >>> _brief("regex parse error:\\n  (\\n  ^\\nerror: unclosed group")
    'unclosed group'
    """
    lines = [line.strip() for line in message.splitlines()]
    named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join(named or lines)
