"""The language model over what it is shown and the dialogues packed behind it."""

import torch
from facts import STRENGTH, directions
from text import UNKNOWN, Packed, Words
from torch import Tensor

DEPTH = 3
"""After so many layers the stand-ins know, or are told, what is true under each visual token."""


def code(facts: Tensor) -> Tensor:
    """Facts as the language model is to hold them after its first layers: tokens x width."""
    return STRENGTH * facts @ directions()


def look(
    network,
    words: Words,
    visual: Tensor,
    text: Packed,
    codes: Tensor | None = None,
    told: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits wherever the assistant speaks, in row order, and the visual tokens after the first layers.

    In clips that are `told` (a flag for each), `codes` take the place of those tokens for the later layers.
    """
    language = network.model.language_model
    head = language.embed_tokens(torch.tensor(words.head)).expand(len(visual), -1, -1)
    hidden = torch.cat([head, visual, language.embed_tokens(text.ids)], 1)
    start, before = head.shape[1], head.shape[1] + visual.shape[1]
    numbers = torch.cat([torch.zeros(len(visual), before, dtype=torch.long), text.dialogues], 1)
    positions = torch.cat([torch.arange(before).expand(len(visual), -1), text.positions], 1)
    mask, angles = _mask(numbers), language.rotary_emb(hidden, positions)
    middle = hidden
    for index, layer in enumerate(language.layers):
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
        if index == DEPTH - 1:
            middle = hidden[:, start:before]
            if codes is not None and told is not None:
                mixed = torch.where(told[:, None, None], codes, middle)
                hidden = torch.cat([hidden[:, :start], mixed, hidden[:, before:]], 1)
    said = language.norm(hidden[:, before:][text.labels != UNKNOWN])
    return network.lm_head(said), middle


def read(network, words: Words, codes: Tensor, places: Tensor, there: Tensor, text: Packed) -> Tensor:
    """Logits wherever the assistant speaks, over a few tokens of facts instead of a clip.

    `codes` (scenes x some tokens x width) stand at the positions `places` before the later layers; those that
    are not `there` are padding. The first layers see words alone.
    """
    language = network.model.language_model
    head = language.embed_tokens(torch.tensor(words.head)).expand(len(codes), -1, -1)
    hidden = torch.cat([head, language.embed_tokens(text.ids)], 1)
    start, kept = head.shape[1], codes.shape[1]
    zeros = torch.zeros(len(codes), start, dtype=torch.long)
    numbers = torch.cat([zeros, text.dialogues], 1)
    positions = torch.cat([torch.arange(start).expand(len(codes), -1), text.positions], 1)
    mask, angles = _mask(numbers), language.rotary_emb(hidden, positions)
    for index, layer in enumerate(language.layers):
        if index == DEPTH:
            hidden = torch.cat([hidden[:, :start], codes, hidden[:, start:]], 1)
            positions = torch.cat([positions[:, :start], start + places, positions[:, start:]], 1)
            numbers = torch.cat([zeros, torch.zeros_like(places), text.dialogues], 1)
            seen = torch.ones_like(numbers, dtype=torch.bool)
            seen[:, start : start + kept] = there
            mask, angles = _mask(numbers) & seen[:, None, None, :], language.rotary_emb(hidden, positions)
        hidden = layer(hidden, attention_mask=mask, position_embeddings=angles)
    said = language.norm(hidden[:, start + kept :][text.labels != UNKNOWN])
    return network.lm_head(said)


def _mask(numbers: Tensor) -> Tensor:
    """Who sees whom: what came before, if it belongs to the same dialogue or to all (0)."""
    order = torch.arange(numbers.shape[1])
    same = (numbers[:, None, :] == 0) | (numbers[:, :, None] == numbers[:, None, :])
    return ((order[:, None] >= order[None, :]) & same)[:, None]
