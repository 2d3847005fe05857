"""(b) The networks that learnt from pictures learn from clips: alone, or with pictures in one of two ways.

In `separate` a step sees clips or pictures, in `mixed` both; the number of samples is the same. The facts
of what is seen are asked for beside the answers, less and less: from answers alone networks of this size
find out about motion too slowly.
"""

from __future__ import annotations

import time
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


def learn_clips(setting: Setting, way: Way, *, wait_until: float, until: float) -> None:
    """Supervised fine-tuning, and the scores on clips and on pictures."""
    supply = Supply(setting, [CLIPS, STILLS], Words(make_tokenizer()))
    try:
        supply.want(1, 0 if way == "alone" else PICTURES)
        exams = {
            medium: Examination(supply.words, setting.examine, still=medium == "pictures")
            for medium in ("clips", "pictures")
        }
        stack = Stack(setting, _waited(setting, supply, wait_until))
        clips, stills = supply.pools
        batch = setting.batch
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

        pace = paced(setting, until, setting.video_steps)
        both = stack.language | stack.join
        log = stack.learn(way, both, losses, pace, rate=0.005, cool=0.65, supply=supply)
    finally:
        supply.stop()
    found: dict[str, object] = {"log": [log]}
    for medium, exam in exams.items():
        found[medium] = cells(exam.hold(stack))
        write_whole(setting.out / f"clips-{way}.json", found)


def _waited(setting: Setting, supply: Supply, until: float) -> Path:
    """The folder of states that part (a) leaves, when all are there."""
    folder = setting.out / "pictures-tiles"
    while not all((folder / f"seed{seed}.pt").exists() for seed in range(setting.seeds)):
        if time.time() > until:
            raise SystemExit(f"{folder}: no states of part (a) were there in time")
        supply.fill()
        time.sleep(0.3)
    return folder
