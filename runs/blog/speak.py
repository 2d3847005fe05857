"""Answers of stacked networks, word by word, drawn or the likeliest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from networks import LANGUAGE, angles, language_layer, mask_of
from painting import Rows
from stack import Stack
from stages import Seen, Text
from text import END, UNKNOWN
from torch import Tensor

LONGEST = 20
"""Tokens of an answer at most; a caption of two things takes 18 and its end."""


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


class Kept:
    """Keys and values of one layer, in a place with room for all that will be said."""

    def __init__(self, room: int) -> None:
        self.room, self.length, self.all = room, 0, None

    def grown(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All so far, with these behind them."""
        if self.all is None:
            rows, heads, _, width = keys.shape
            self.all = keys.new_empty(2, rows, heads, self.room, width)
        end = self.length + keys.shape[2]
        self.all[0, :, :, self.length : end], self.all[1, :, :, self.length : end] = keys, values
        self.length = end
        return self.all[0, :, :, :end], self.all[1, :, :, :end]

    def repeated(self, each: int) -> None:
        """Every row so many times, one after the other."""
        self.all = self.all.repeat_interleave(each, 1)


@torch.no_grad()
def speak(
    stack: Stack, rows: Rows, views: Views, *, each: int = 1, temperature: float = 0.0, top_p: float = 1.0
) -> list[list[list[str]]]:
    """For each network and each scene so many answers; temperature 0 takes the likeliest word.

    A row holds a question and its answer. All rows read their questions and then speak, word by word.
    """
    text = Text.of(rows, stack.seeds)
    # The label at a place is the next token: the first one that is to be said stands at the last asked.
    asked = ((text.labels != UNKNOWN).int().argmax(-1) + 1).repeat_interleave(each, 1)
    room = int(asked.max()) + LONGEST
    ids = text.ids[..., :room].repeat_interleave(each, 1)
    scenes, before = views.visual.shape[1], len(stack.head) + views.tokens
    layers = stack.networks.layers(f"{LANGUAGE}layers.")
    kept = [Kept(before + room) for _ in layers]

    def passed(x: Tensor, first: int, mask: Tensor | None) -> Tensor:
        places = torch.arange(first, first + x.shape[2], device=stack.device)[None]
        for layer, past in zip(layers, kept, strict=True):
            x = language_layer(layer, x, mask, *angles(places), stack.model.half, past)
        return x

    head = stack.model.embed(stack.head.expand(stack.seeds, scenes, -1))
    nobody = torch.zeros(1, before, dtype=torch.long, device=stack.device)
    passed(torch.cat([head, views.visual], 2), 0, mask_of(nobody, stack.model.half))
    for past in kept:
        past.repeated(each)
    over = torch.zeros_like(asked, dtype=torch.bool)
    for place in range(room - 1):
        x = passed(stack.model.embed(ids[..., place : place + 1]), before + place, None)
        word = _drawn(stack.model.logits(x)[:, :, 0], temperature, top_p)
        speaking = asked <= place + 1
        word = torch.where(over, END, word)
        ids[..., place + 1] = torch.where(speaking, word, ids[..., place + 1])
        over |= speaking & (word == END)
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
