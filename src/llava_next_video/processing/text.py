"""Rendered texts and token counts to rows of ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from llava_next_video.errors import ConfigError, PromptError
from llava_next_video.inputs import MediumKind
from llava_next_video.processing.call import CallOptions
from llava_next_video.processing.chat import Rendered
from llava_next_video.processing.prompt import (
    Placeholders,
    Prompt,
    check_counts,
    encoded,
    padded,
    padded_length,
    truncated,
)
from llava_next_video.processing.settings import TensorKind


def text_inputs(
    texts: Sequence[Rendered],
    *,
    tokens: Mapping[MediumKind, Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    placeholders: Placeholders,
    call: CallOptions,
) -> dict[str, object]:
    """`input_ids` and `attention_mask` of a batch; `tokens` has the visual tokens of each medium, by kind.

    Raises:
        PromptError: Placeholders and media do not agree, or the texts differ in length without padding.
    """
    refuse_miscounted(texts, {kind: len(counts) for kind, counts in tokens.items()}, placeholders)
    waiting = {kind: iter(counts) for kind, counts in tokens.items()}
    prompts = [encoded_text(one, waiting, tokenizer, placeholders, call) for one in texts]
    rows: dict[str, list[list[int]]] = {
        "input_ids": [list(prompt.ids) for prompt in prompts],
        "attention_mask": [[1] * len(prompt.ids) for prompt in prompts],
    }
    if call.mark_spoken:
        rows["assistant_masks"] = [list(map(int, prompt.spoken)) for prompt in prompts]
    if call.return_mm_token_type_ids:
        kinds = {placeholders.ids["image"]: 1, placeholders.ids["video"]: 2}
        rows["mm_token_type_ids"] = [[kinds.get(token, 0) for token in prompt.ids] for prompt in prompts]
    lengths = [len(prompt.ids) for prompt in prompts]
    length = padded_length(
        lengths, padding=call.padding, max_length=call.max_length, multiple=call.pad_to_multiple_of
    )
    if length is not None:
        rows = {name: _padded(name, values, length, tokenizer, call) for name, values in rows.items()}
    elif call.return_tensors is not None and len(set(lengths)) > 1:
        raise PromptError(
            f"the texts have {min(lengths)} to {max(lengths)} tokens; pass padding=True to batch them"
        )
    return {name: _as(call.return_tensors, values) for name, values in rows.items()}


def encoded_text(
    one: Rendered,
    waiting: Mapping[MediumKind, Iterator[int]],
    tokenizer: PreTrainedTokenizerBase,
    placeholders: Placeholders,
    call: CallOptions,
) -> Prompt:
    """One text in ids, cut if the call says so."""
    special = call.add_special_tokens
    if special is None:
        # A template that writes the first special token itself would get it twice.
        start = tokenizer.bos_token
        special = not (call.from_template and start is not None and one.text.startswith(start))
    prompt = encoded(
        tokenizer,
        one.text,
        placeholders=placeholders,
        tokens=waiting,
        add_special_tokens=special,
        spoken=one.spoken,
    )
    if not call.truncation:
        return prompt
    return truncated(
        prompt,
        room=call.max_length or tokenizer.model_max_length,
        side=tokenizer.truncation_side,
        tokenizer=tokenizer,
        special=special,
    )


def refuse_miscounted(
    texts: Sequence[Rendered], given: Mapping[MediumKind, int], placeholders: Placeholders
) -> None:
    """Refuse texts with more or fewer placeholders than media.

    Raises:
        PromptError: Naming both numbers.
    """
    found: dict[MediumKind, int] = {
        kind: sum(one.text.count(token) for one in texts) for kind, token in placeholders.text.items()
    }
    check_counts(placeholders.text, found, given)


def _padded(
    name: str, rows: list[list[int]], length: int, tokenizer: PreTrainedTokenizerBase, call: CallOptions
) -> list[list[int]]:
    filler = tokenizer.pad_token_id if name == "input_ids" else 0
    if filler is None:
        raise ConfigError("the tokenizer has no padding token; set processor.tokenizer.pad_token")
    return [padded(row, length, filler, call.padding_side or tokenizer.padding_side) for row in rows]


def _as(kind: TensorKind | None, rows: list[list[int]]) -> object:
    match kind:
        case "pt":
            return torch.tensor(rows)
        case "np":
            return np.array(rows)
    return rows
