"""(c) Direct preference optimisation from feedback, with the world's truth as the judge.

First the networks learn from careless captions, as those of the web are: most are short, some are wrong.
Then, round after round, they caption new clips several times, the judge scores each caption by the facts
that are both true and said, and the best of a clip is preferred to the worst.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from careless import careless, prompted
from files import write_whole
from marks import Cell, Examination, caption_marks, cell, cells
from painting import Rows
from pool import to_device
from scenes import Mix
from scenes import rows as scene_rows
from speak import Views, picked, speak
from stack import ROOM, Setting, Stack, Supply, learnt, paced
from stages import Text, look
from text import UNKNOWN, dialogue_rows
from torch import Tensor

from llava_next_video.feedback.pairing import choose
from llava_next_video.train.dpo_settings import DpoSettings
from llava_next_video.train.preferences import Answers, pair_losses
from llava_next_video.world.captions import truth_share
from llava_next_video.world.questions import Question

THINGS = (0.0, 45.0, 55.0, 0.0)
SAMPLES, TEMPERATURE, TOP_P = 6, 1.0, 0.95
DPO = DpoSettings(beta=0.1, sft_weight=0.1)
RATE = 0.0005
"""Of the preferences; a tenth of what answers are learnt with."""
PASSES = 2
"""How often the pairs of a round are looked at."""
PAIR_ROOM = 64
"""Tokens of a question and an answer, twice; what is longer is left out."""
FILLING = {"id": 0, "label": UNKNOWN, "position": 0, "dialogue": -1, "weight": 0.0}
"""Columns of text in the order of `dialogue_rows`, and what stands where a row has no more words."""
AT_ONCE = 48
"""Clips that are captioned at once."""
SCALES = {"words": 1.0}
"""What is not given in per cent."""


def learn_preferences(setting: Setting, *, careless_until: float, until: float) -> None:
    """Careless answers first, then the rounds; scores before, between and after."""
    stack = Stack(setting, setting.start)
    mixes = [Mix(things=THINGS, choose=careless), Mix(things=THINGS, choose=prompted)]
    supply = Supply(setting, mixes, stack.words)
    try:
        supply.want(1, 0.3)
        pace = paced(setting, careless_until)
        losses = lambda done: [stack.asked(supply.pools[0], setting.batch, still=False)]  # noqa: E731
        both = stack.language | stack.join
        log = [learnt(stack.lessons("careless", both, losses, pace, rate=0.003, cool=0.6, supply=supply))]
        found: dict[str, object] = {"log": log, "rounds": []}
        exam = Examination(stack.words, setting.examine)
        table = scene_rows(random.Random("unseen"), setting.examine, mixes[1], stack.words, ROOM)
        unseen = to_device(np.concatenate([table] * stack.seeds), stack.device)
        found["before"] = examined(stack, exam, unseen)
        write_whole(setting.out / "preferences.json", found)
        supply.want(0, 1)
        rounds = []
        for number in range(setting.rounds):
            supply.fill()
            if time.time() > until:
                break
            told, step_log = _round(stack, setting, supply, until)
            rounds.append(told)
            log.append(step_log)
            print(f"{stack.clock()} round {number + 1}: {told}", flush=True)
            found["rounds"] = rounds
            if number + 1 == setting.rounds // 2:
                found["after"] = examined(stack, exam, unseen)
            write_whole(setting.out / "preferences.json", found)
        found["after"] = examined(stack, exam, unseen)
        write_whole(setting.out / "preferences.json", found)
    finally:
        supply.stop()


def examined(stack: Stack, exam: Examination, unseen: Rows) -> dict[str, dict[str, Cell]]:
    """Greedy captions of unseen clips by their facts, and the packed questions."""
    truths = _truths(stack, unseen)
    said = _in_parts(stack, unseen, Views.of(stack, unseen, AT_ONCE), each=1)
    marks = [
        [caption_marks(captions[0], truth) for captions, truth in zip(found, true, strict=True)]
        for found, true in zip(said, truths, strict=True)
    ]
    scenes = [str(number) for number in range(len(marks[0]))]
    captions = {
        name: cell(
            [(scene, [of[number][name] for of in marks]) for number, scene in enumerate(scenes)],
            scale=SCALES.get(name, 100.0),
        )
        for name in marks[0][0]
    }
    return {"captions": captions, "questions": cells(exam.hold(stack))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of one network: which scene each is about, and both answers as rows of text."""

    scenes: Tensor
    text: dict[str, Tensor]


def _round(
    stack: Stack, setting: Setting, supply: Supply, until: float
) -> tuple[dict[str, object], dict[str, object]]:
    """Caption, judge, pair, learn."""
    per_seed = setting.batch * 8 if setting.steps is None else setting.batch
    rows = stack.draw(supply.pools[1], per_seed)
    truths, views = _truths(stack, rows), Views.of(stack, rows, AT_ONCE)
    said = _in_parts(stack, rows, views, each=SAMPLES)
    pairs, scores = [], []
    for seed in range(stack.seeds):
        judged = [
            {answer: truth_share(answer, truth) for answer in answers}
            for answers, truth in zip(said[seed], truths[seed], strict=True)
        ]
        scores.append(sum(sum(marks.values()) / len(marks) for marks in judged) / len(judged))
        pairs.append(_pairs(stack, rows, seed, judged))
    told: dict[str, object] = {
        "pairs": [len(found.scenes) for found in pairs],
        "clips": per_seed,
        "judge": [round(100 * score, 2) for score in scores],
        **_sampled(said, truths),
    }
    if min(len(found.scenes) for found in pairs) == 0:
        return told, {"stage": "preferences", "steps": 0}
    steps = max(PASSES * min(len(found.scenes) for found in pairs) // setting.batch, 1)
    reference = _reference(stack, views, pairs, setting.batch)
    figures: list[Tensor] = []

    def losses(done: float) -> list[Tensor]:
        chosen = [torch.randint(len(f.scenes), (setting.batch,), device=stack.device) for f in pairs]
        answers, spoken = _compared(stack, views, pairs, chosen, reference)
        each = pair_losses(answers, DPO).view(stack.seeds, -1).mean(1)
        with torch.no_grad():
            good, bad = answers.sums(answers.policy - answers.reference)
            figures.append(torch.stack([(good > bad).float().mean(), DPO.beta * (good - bad).mean()]))
        return [each, DPO.sft_weight * spoken]

    pace = paced(setting, until, steps)
    step_log = learnt(stack.lessons("preferences", stack.language, losses, pace, rate=RATE, cool=0.5))
    accuracy, margin = torch.stack(figures).mean(0).tolist()
    return told | {"accuracy": round(accuracy, 3), "margin": round(margin, 3)}, step_log


def _sampled(said: Sequence[list[list[str]]], truths: Sequence[list[str]]) -> dict[str, object]:
    """Facts of drawn captions, for each network."""
    found: dict[str, object] = {}
    each = [
        [caption_marks(one, truth) for captions, truth in zip(of, true, strict=True) for one in captions]
        for of, true in zip(said, truths, strict=True)
    ]
    for name in ("right", "wrong", "missing", "words"):
        scale = SCALES.get(name, 100.0)
        found[name] = [round(scale * sum(one[name] for one in marks) / len(marks), 2) for marks in each]
    return found


def _truths(stack: Stack, rows: Rows) -> list[list[str]]:
    """The true captions, from the labels of rows that hold nothing else."""
    text = Text.of(rows, stack.seeds)
    spoken = [[[w for w in row if w > 2] for row in of] for of in text.labels.tolist()]
    return [[stack.words.tokenizer.decode(words).strip() for words in of] for of in spoken]


def _in_parts(stack: Stack, rows: Rows, views: Views, *, each: int) -> list[list[list[str]]]:
    """Captions of many clips, some at once; greedy if one each is wanted."""
    found: list[list[list[str]]] = [[] for _ in range(stack.seeds)]
    options = {"temperature": TEMPERATURE, "top_p": TOP_P} if each > 1 else {}
    for part in torch.arange(views.visual.shape[1], device=stack.device).split(AT_ONCE):
        said = speak(stack, picked(rows, stack.seeds, part), views.some(part), each=each, **options)
        for seed, captions in enumerate(said):
            found[seed] += captions
    return found


def _pairs(stack: Stack, rows: Rows, seed: int, judged: Sequence[dict[str, float]]) -> Pairs:
    """The best answer against the worst, wherever the judge tells some apart."""
    count = len(judged)
    scenes, made = [], []
    for number, scores in enumerate(judged):
        chosen = choose(scores, "best_worst")
        if chosen is None:
            continue
        question = _question(stack, rows, seed * count + number)
        spoken = [[Question(family="caption", text=question, answer=answer)] for answer in chosen]
        columns = dialogue_rows(spoken, stack.words)
        if len(columns[0]) <= PAIR_ROOM:
            scenes.append(number)
            made.append(columns)
    text = {}
    for index, (name, filling) in enumerate(FILLING.items()):
        filled = [[*columns[index], *[filling] * (PAIR_ROOM - len(columns[index]))] for columns in made]
        text[name] = torch.tensor(filled, device=stack.device).view(len(scenes), PAIR_ROOM)
    return Pairs(scenes=torch.tensor(scenes, dtype=torch.long, device=stack.device), text=text)


def _question(stack: Stack, rows: Rows, row: int) -> str:
    """The question of a row in words: what stands between the newline and `ASSISTANT:`."""
    labels, ids = rows["label"][row].tolist(), rows["id"][row].tolist()
    asked = next(place for place, label in enumerate(labels) if label != UNKNOWN) + 1
    return stack.words.tokenizer.decode(ids[:asked]).strip().removesuffix(" ASSISTANT:")


def _compared(
    stack: Stack,
    views: Views,
    pairs: Sequence[Pairs],
    chosen: Sequence[Tensor],
    reference: Sequence[Tensor] | None,
) -> tuple[Answers, Tensor]:
    """Log-probabilities of both answers to each chosen pair, a clip seen once for both.

    Also the mean cross-entropy of the preferred answers, one number a network.
    """
    seen = [
        visual[found.scenes[which]] for visual, found, which in zip(views.visual, pairs, chosen, strict=True)
    ]
    columns = {
        name: torch.cat([found.text[name][which] for found, which in zip(pairs, chosen, strict=True)])
        for name in pairs[0].text
    }
    text = Text.of(columns, stack.seeds)
    logits, _ = look(stack.model, stack.head, Views(visual=torch.stack(seen)), text)
    spoken = text.labels != UNKNOWN
    logs = logits.log_softmax(-1).gather(-1, text.labels.clamp_min(0)[..., None])[..., 0]
    count = len(chosen[0])
    row = torch.arange(stack.seeds * count, device=stack.device).view(stack.seeds, count, 1)
    answer = (2 * row + text.dialogues - 1)[spoken]
    if reference is None:
        before = logs.detach()
    else:
        before = torch.stack([found[which] for found, which in zip(reference, chosen, strict=True)])
    best = spoken & (text.dialogues == 1)
    entropy = -(logs * best).flatten(1).sum(1) / best.flatten(1).sum(1).clamp_min(1)
    answers = Answers(policy=logs[spoken], reference=before[spoken], answer=answer, pairs=stack.seeds * count)
    return answers, entropy


@torch.no_grad()
def _reference(stack: Stack, views: Views, pairs: Sequence[Pairs], batch: int) -> list[Tensor]:
    """Log-probabilities of every token of all pairs before the round: pairs x room, for each network."""
    most = max(len(found.scenes) for found in pairs)
    kept: list[list[Tensor]] = [[] for _ in pairs]
    for part in _batches(most, batch, stack.device):
        chosen = [part.clamp(max=len(found.scenes) - 1) for found in pairs]
        answers, _ = _compared(stack, views, pairs, chosen, None)
        labels = torch.stack([found.text["label"][which] for found, which in zip(pairs, chosen, strict=True)])
        logs = torch.zeros(labels.shape, device=stack.device)
        logs[labels != UNKNOWN] = answers.reference
        for seed, one in enumerate(logs):
            kept[seed].append(one)
    return [torch.cat(found) for found in kept]


def _batches(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    return iter(torch.arange(count, device=device).split(size))
