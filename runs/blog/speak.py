"""Answers of stacked networks, word by word, drawn or the likeliest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from painting import Rows
from stack import Stack
from stages import Seen, Text, look
from text import END, UNKNOWN
from torch import Tensor

LONGEST = 20
"""Tokens of an answer at most; a caption of two things takes 18 and its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """One question about each scene: seeds x rows x room, and how many of the tokens are the question."""

    ids: Tensor
    asked: Tensor

    @classmethod
    def of(cls, text: Text) -> Prompts:
        """The questions of rows that hold one dialogue each."""
        # The label at a place is the next token: the first one that is to be said stands at the last asked.
        asked = (text.labels != UNKNOWN).int().argmax(-1) + 1
        return cls(ids=text.ids, asked=asked)

    def text(self, ids: Tensor) -> Text:
        """Questions and answers so far as one dialogue for each row; what follows is not seen by it."""
        order = torch.arange(ids.shape[-1], device=ids.device).expand(ids.shape)
        return Text(
            ids=ids,
            labels=torch.full_like(ids, UNKNOWN),
            positions=order,
            dialogues=torch.ones_like(ids),
            weights=torch.ones(ids.shape, device=ids.device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What networks see of clips, as `look` reads it: seeds x clips x visual tokens x width."""

    visual: Tensor

    @property
    def tokens(self) -> int:
        """Visual tokens of a clip."""
        return self.visual.shape[2]

    @classmethod
    @torch.no_grad()
    def of(cls, stack: Stack, rows: Rows, at_once: int) -> Views:
        """Clips drawn and encoded once, some at once."""
        count = len(rows["place"]) // stack.seeds
        parts = [
            picked(rows, stack.seeds, part)
            for part in torch.arange(count, device=stack.device).split(at_once)
        ]
        return cls(visual=torch.cat([Seen(stack.model, part, None).visual for part in parts], 1))

    def some(self, part: Tensor) -> Views:
        """A part of the clips of every network."""
        return Views(visual=self.visual[:, part])


def picked(rows: Rows, seeds: int, part: Tensor) -> Rows:
    """A part of the scenes of every network."""
    return {name: column.unflatten(0, (seeds, -1))[:, part].flatten(0, 1) for name, column in rows.items()}


@torch.no_grad()
def speak(
    stack: Stack, rows: Rows, views: Views, *, each: int = 1, temperature: float = 0.0, top_p: float = 1.0
) -> list[list[list[str]]]:
    """For each network and each scene so many answers; temperature 0 takes the likeliest word.

    A row holds a question and its answer. Nothing is cached: every word costs a pass over all before.
    """
    prompts = Prompts.of(Text.of(rows, stack.seeds))
    scenes = views.visual.shape[1]
    seen = Views(visual=views.visual.repeat_interleave(each, 1))
    asked = prompts.asked.repeat_interleave(each, 1)
    room = int(asked.max()) + LONGEST
    ids = prompts.ids[..., :room].repeat_interleave(each, 1)
    ids = torch.where(torch.arange(room, device=stack.device) < asked[..., None], ids, 0)
    over = torch.zeros_like(asked, dtype=torch.bool)
    for step in range(LONGEST):
        logits, _ = look(stack.model, stack.head, seen, prompts.text(ids))
        last = (asked + step - 1)[..., None, None].expand(-1, -1, 1, logits.shape[-1])
        word = _drawn(logits.gather(2, last)[:, :, 0], temperature, top_p)
        word = torch.where(over, END, word)
        ids.scatter_(2, (asked + step)[..., None], word[..., None])
        over |= word == END
        if bool(over.all()):
            break
    said = [
        [_said(stack, words, first) for words, first in zip(*of, strict=True)]
        for of in zip(ids.tolist(), asked.tolist(), strict=True)
    ]
    return [[of[first : first + each] for first in range(0, scenes * each, each)] for of in said]


def _drawn(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """One word of each row: the likeliest, or drawn from the likeliest that reach `top_p` together."""
    if not temperature:
        return logits.argmax(-1)
    shares, words = (logits.float() / temperature).softmax(-1).sort(-1, descending=True)
    shares = torch.where(shares.cumsum(-1) - shares < top_p, shares, 0.0)
    drawn = torch.multinomial(shares.flatten(0, -2), 1).view(*shares.shape[:-1], 1)
    return words.gather(-1, drawn)[..., 0]


def _said(stack: Stack, ids: list[int], asked: int) -> str:
    said = ids[asked : asked + LONGEST]
    said = said[: said.index(END)] if END in said else said
    return stack.words.tokenizer.decode(said).strip()
