"""(d) Networks that have seen clips of 4 to 16 frames read longer ones, positions as they are or divided.

Two kinds: `plain` has seen positions as they are, `stretched` also ones divided by up to 4, with half of its
clips.
"""

from __future__ import annotations

import time

import torch
from files import write_whole
from marks import GROUPS, Examination, cells
from network import CELLS
from scenes import Mix
from stack import SMALL, Setting, Stack, Supply, paced
from stages import Seen, Text, answer_loss, look
from torch import Tensor
from transformers import LlamaConfig

from llava_next_video.long_video import RopeScaling
from llava_next_video.model.context import chosen_rope

TRAINED_FRAMES = (4, 8, 12, 16)
READ_FRAMES = (4, 8, 16, 32, 64)
FACTORS = (1.0, 2.0, 4.0)
WORDS = 64
"""Tokens that a question and its answer take at most."""
KINDS = ("plain", "stretched")


def tokens_of(frames: int, head: int) -> int:
    """Of a prompt and its answer about so many frames."""
    return head + frames * CELLS**2 + WORDS


def automatic_factor(frames: int, head: int) -> float:
    """What the product's rule (`--rope auto`) gives a network trained on 16 frames.

    >>> [automatic_factor(frames, 4) for frames in READ_FRAMES]
    [1.0, 1.0, 1.0, 2.0, 3.5]
    """
    trained = LlamaConfig(max_position_embeddings=tokens_of(TRAINED_FRAMES[-1], head))
    rope = chosen_rope(trained, RopeScaling(), tokens_of(frames, head))
    return 1.0 if rope is None or rope.factor is None else rope.factor


def learn_lengths(setting: Setting, *, until: float, read_until: float) -> None:
    """Fine-tuning with varied numbers of frames, then the scores by frames and factor."""
    stack = Stack(setting, setting.start, copies=len(KINDS))
    mixes = [Mix(things=SMALL, alike=0.4, unequal=0.3, focus=0.3, frames=frames) for frames in TRAINED_FRAMES]
    supply = Supply(setting, mixes, stack.words)
    images = setting.batch * 4

    def losses(done: float) -> list[Tensor]:
        which = stack.rng.randrange(len(mixes))
        rows = stack.draw(supply.pools[which], images // TRAINED_FRAMES[which])
        seen, text = Seen(stack.model, rows, None), Text.of(rows, stack.seeds)
        stretch = torch.ones(*seen.visual.shape[:2], 1, device=stack.device)
        half = stretch[setting.seeds :]
        drawn = 1 + (FACTORS[-1] - 1) * torch.rand_like(half)
        half.copy_(torch.where(torch.rand_like(half) < 0.5, drawn, 1.0))
        return [answer_loss(look(stack.model, stack.head, seen, text, stretch=stretch)[0], text)]

    try:
        supply.want(*[1] * len(mixes))
        both = stack.language | stack.join
        pace = paced(setting, until)
        log = stack.learn("lengths", both, losses, pace, rate=0.003, cool=0.95, supply=supply)
    finally:
        supply.stop()
    head = len(stack.head)
    found: dict[str, object] = {"log": [log], "trained": tokens_of(TRAINED_FRAMES[-1], head), "rows": []}
    rows: list[dict[str, object]] = []
    exams = {frames: Examination(stack.words, setting.examine, frames=frames) for frames in READ_FRAMES}
    first = [(frames, factor) for frames in READ_FRAMES for factor in (1.0, automatic_factor(frames, head))]
    later = [(frames, factor) for factor in FACTORS[1:] for frames in READ_FRAMES]
    for frames, factor in dict.fromkeys([*first, *later]):
        if time.time() > read_until:
            print(f"{stack.clock()} no time left to read {frames} frames with factor {factor:g}", flush=True)
            continue
        marks = exams[frames].hold(stack, stretch=factor, at_once=max(min(16, 512 // frames), 1))
        row = {"frames": frames, "factor": factor, "automatic": factor == automatic_factor(frames, head)}
        for index, kind in enumerate(KINDS):
            these = slice(index * setting.seeds, (index + 1) * setting.seeds)
            every = cells(marks, these)
            rows.append({**row, "kind": kind, "cells": {name: every[name] for name in ("all", *GROUPS)}})
        print(f"{stack.clock()} read {frames} frames with factor {factor:g}", flush=True)
        write_whole(setting.out / "lengths.json", found | {"rows": rows})
