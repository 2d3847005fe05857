"""(a) Networks that learn from pictures alone, with tiles (AnyRes) or from the base view, and then see clips.

Of the states that they start from only the tower is taken, which has seen single frames. `reading` and
`seeing` stand in for a pretrained language model and its first sight, as in `runs/tiny`: the language model
is told, as numbers, what is true in pictures and in clips, but pixels come from pictures alone.
"""

from __future__ import annotations

import time

import torch
from files import write_whole
from marks import Examination, cells
from scenes import Mix
from stack import SMALL, Setting, Stack, Supply, learnt, paced
from stages import Seen, Text, answer_loss, code, fact_loss, look, read
from text import Words, make_tokenizer
from torch import Tensor

CLIPS = Mix(things=SMALL, alike=0.5, unequal=0.4, focus=0.4)
STILLS = Mix(things=SMALL, alike=0.5, unequal=0.4, focus=0.4, still=True)
READING, SEEING, ALIGN = 0.34, 0.76, 0.78
"""When these stages are over, as shares; `sft` takes the rest."""
APART, UNTOLD = 0.3, 0.6
"""Shares of `seeing`: reading goes on beside it until the first, facts are told until the second."""


def learn_pictures(setting: Setting, *, tiled: bool, until: float) -> None:
    """All stages, their states, and the scores on pictures and (never seen) clips."""
    name = "pictures-tiles" if tiled else "pictures-base"
    supply = Supply(setting, [STILLS, CLIPS], Words(make_tokenizer()), workers=2 * setting.workers)
    stack = Stack(setting, setting.start, tower_only=True)
    stills, clips = supply.pools
    batch = setting.batch

    def told(pool_is_stills: bool) -> Tensor:
        rows = stack.draw(stills if pool_is_stills else clips, batch * 3 // 2)
        size, text = stack.size() if pool_is_stills else None, Text.of(rows, stack.seeds)
        return answer_loss(read(stack.model, stack.head, rows, size, text, tiled=tiled), text)

    def reading(done: float) -> list[Tensor]:
        return [told(stack.rng.random() < 0.5)]

    def seeing(done: float) -> list[Tensor]:
        if done < APART and stack.rng.random() < 0.35:
            return reading(done)
        seen = Seen(stack.model, stack.draw(stills, batch), stack.size(), tiled=tiled)
        text, facts = Text.of(seen.rows, stack.seeds), seen.facts()
        share = min(max((UNTOLD - done) / (UNTOLD - APART), 0.0), 1.0)
        tell = torch.rand(seen.visual.shape[:2], device=stack.device) < share
        logits, middle = look(stack.model, stack.head, seen, text, tell, code(facts))
        loss, _ = fact_loss(middle, facts, seen.tokens)
        return [(1.0 if done < APART else 1 - 0.5 * done) * loss, answer_loss(logits, text)]

    def asked(done: float) -> list[Tensor]:
        return [stack.asked(stills, batch, still=True, tiled=tiled)]

    try:
        supply.want(1, 1)
        begun, log = time.time(), []
        both = stack.language | stack.join
        for stage, weights, losses, share, rate, cool in (
            ("reading", stack.language, reading, READING, 0.008, 0.4),
            ("seeing", both, seeing, SEEING, 0.006, 0.65),
            ("align", stack.join, asked, ALIGN, 0.004, 0.5),
            ("sft", both, asked, 1.0, 0.003, 0.95),
        ):
            if stage == "seeing":
                supply.want(1, 0.2)
            pace = paced(setting, begun + share * (until - begun))
            log.append(
                learnt(stack.lessons(stage, weights, losses, pace, rate=rate, cool=cool, supply=supply))
            )
        stack.save(setting.out / name)
    finally:
        supply.stop()
    found: dict[str, object] = {"log": log}
    for medium, exam in (
        ("clips", Examination(stack.words, setting.examine)),
        ("pictures", Examination(stack.words, setting.examine, still=True, tiled=tiled)),
    ):
        found[medium] = cells(exam.hold(stack))
        write_whole(setting.out / f"{name}.json", found)
