"""(b) The networks that learnt from pictures learn from clips: alone, or with pictures in one of two ways.

In `separate` a step sees clips or pictures, in `mixed` both; the number of samples is the same. These two
learn in turns, a step each, so that neither gets more steps. The facts of what is seen are asked for beside
the answers, less and less: from answers alone networks of this size find out about motion too slowly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import tee
from pathlib import Path
from typing import Literal

from files import write_whole
from marks import Examination, cells
from pictures import CLIPS, STILLS
from stack import Setting, Stack, Supply, paced
from stages import Seen, Text, answer_loss, fact_loss, look
from text import Words, make_tokenizer
from torch import Tensor

Way = Literal["alone", "separate", "mixed"]
PICTURES = 0.3
"""Share of the samples that are pictures."""


def learn_clips(setting: Setting, ways: tuple[Way, ...], *, wait_until: float, until: float) -> None:
    """Supervised fine-tuning in these ways, as many steps in each; the scores on clips and on pictures."""
    supply = Supply(setting, [CLIPS, STILLS], Words(make_tokenizer()))
    try:
        supply.want(1, 0 if ways == ("alone",) else PICTURES)
        exams = {
            medium: Examination(supply.words, setting.examine, still=medium == "pictures")
            for medium in ("clips", "pictures")
        }
        states = _waited(setting, supply, wait_until)
        stacks = [Stack(setting, states) for _ in ways]
        paces = tee(paced(setting, until, setting.video_steps), len(ways))
        lessons = [
            stack.lessons(
                way,
                stack.language | stack.join,
                losses_of(stack, supply, way),
                pace,
                rate=0.005,
                cool=0.65,
                supply=supply,
            )
            for stack, way, pace in zip(stacks, ways, paces, strict=True)
        ]
        logs = [list(told) for told in zip(*lessons, strict=True)][-1]
    finally:
        supply.stop()
    before = json.loads((setting.out / "pictures-tiles.json").read_text(encoding="utf-8"))
    found: dict[str, object] = {"log": logs, "before": {medium: before[medium] for medium in exams}}
    for way, stack in zip(ways, stacks, strict=True):
        found[way] = {medium: cells(exam.hold(stack)) for medium, exam in exams.items()}
        write_whole(setting.out / f"clips-{'joint' if len(ways) > 1 else ways[0]}.json", found)


def losses_of(stack: Stack, supply: Supply, way: Way) -> Callable[[float], list[Tensor]]:
    """What a step of that way learns from."""
    clips, stills = supply.pools
    batch = stack.setting.batch
    few = max(round(batch * PICTURES), 1)

    def lesson(done: float, *, still: bool, count: int) -> Tensor:
        size = stack.size() if still else None
        seen = Seen(stack.model, stack.draw(stills if still else clips, count), size)
        text = Text.of(seen.rows, stack.seeds)
        logits, middle = look(stack.model, stack.head, seen, text)
        loss, _ = fact_loss(middle, seen.facts(), seen.tokens)
        return (1 - done) * loss + answer_loss(logits, text)

    def losses(done: float) -> list[Tensor]:
        if way == "mixed":
            parts = ((False, max(batch - few, 1)), (True, few))
            return [lesson(done, still=still, count=n) * (n / batch) for still, n in parts]
        still = way == "separate" and stack.rng.random() < PICTURES
        return [lesson(done, still=still, count=batch)]

    return losses


def _waited(setting: Setting, supply: Supply, until: float) -> Path:
    """The folder of states that part (a) leaves, when all are there."""
    folder = setting.out / "pictures-tiles"
    while not all((folder / f"seed{seed}.pt").exists() for seed in range(setting.seeds)):
        if time.time() > until:
            raise SystemExit(f"{folder}: no states of part (a) were there in time")
        supply.fill()
        time.sleep(0.3)
    return folder
