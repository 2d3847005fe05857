"""(d) Networks that have seen clips of 4 to 16 frames read longer ones, positions as they are or stretched.

Two kinds: `plain` has seen positions as they are, `stretched` also ones divided by up to 4, with half of its
clips. What they learnt is kept, so that further ways to stretch need no training.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from files import write_whole
from marks import GROUPS, Examination, cells
from network import CELLS, LAYERS, WIDTH
from networks import HEADS, THETA, TOWER, Turning
from ropes import FRAME, HEAD, READ_FRAMES, TRAINED_FRAMES, automatic, name_of, tokens_of, tried
from scenes import Mix
from stack import SMALL, Setting, Stack, Supply, learnt, paced
from stages import Seen, Text, answer_loss, look
from text import Words, make_tokenizer
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from llava_next_video.long_video import RopeScaling
from llava_next_video.model.rope import scaled_rotary

MOST = 4.0
"""Positions are divided by up to so much while `stretched` networks learn."""
KINDS = ("plain", "stretched")


def learn_lengths(setting: Setting, *, until: float, read_until: float) -> None:
    """Fine-tuning with varied numbers of frames, unless that has been done; then the scores by frames."""
    mixes = [Mix(things=SMALL, alike=0.4, unequal=0.3, focus=0.3, frames=frames) for frames in TRAINED_FRAMES]
    supply = None if setting.learnt else Supply(setting, mixes, Words(make_tokenizer()))
    stack = Stack(setting, setting.start, copies=len(KINDS))
    if (len(stack.head), CELLS**2) != (HEAD, FRAME):
        raise ValueError(
            f"{len(stack.head)} tokens before a clip, {CELLS**2} a frame; ropes.py counts others"
        )
    if supply is None:
        log = load(stack, setting.learnt)
    else:
        log = learn(stack, supply, until)
        save(stack, log, setting.out / "lengths")
    found = {"log": [log], "trained": tokens_of(TRAINED_FRAMES[-1])}
    rows: list[dict[str, object]] = []
    for frames in sorted(READ_FRAMES, key=lambda frames: (automatic(frames) is None, -frames)):
        if time.time() > read_until:
            print(f"{stack.clock()} no time left to read {frames} frames", flush=True)
            continue
        rows += read(stack, frames)
        print(f"{stack.clock()} read {frames} frames in {len(tried(frames))} ways", flush=True)
        write_whole(setting.out / "lengths.json", found | {"rows": rows})


def learn(stack: Stack, supply: Supply, until: float) -> dict[str, object]:
    """Fine-tuning; what it was is returned."""
    images = stack.setting.batch * 4

    def losses(done: float) -> list[Tensor]:
        which = stack.rng.randrange(len(TRAINED_FRAMES))
        rows = stack.draw(supply.pools[which], images // TRAINED_FRAMES[which])
        seen, text = Seen(stack.model, rows, None), Text.of(rows, stack.seeds)
        stretch = torch.ones(*seen.visual.shape[:2], 1, device=stack.device)
        half = stretch[stack.setting.seeds :]
        drawn = 1 + (MOST - 1) * torch.rand_like(half)
        half.copy_(torch.where(torch.rand_like(half) < 0.5, drawn, 1.0))
        return [answer_loss(look(stack.model, stack.head, seen, text, stretch=stretch)[0], text)]

    try:
        supply.want(*[1] * len(TRAINED_FRAMES))
        both = stack.language | stack.join
        pace = paced(stack.setting, until)
        return learnt(stack.lessons("lengths", both, losses, pace, rate=0.003, cool=0.95, supply=supply))
    finally:
        supply.stop()


def save(stack: Stack, log: dict[str, object], folder: Path) -> None:
    """What each network learnt, in half precision: `seed0.pt`, ..., each with both kinds; no tower."""
    folder.mkdir(parents=True, exist_ok=True)
    states = stack.networks.states(torch.half)
    seeds = stack.setting.seeds
    for seed in range(seeds):
        kinds = {
            kind: {name: one for name, one in states[index * seeds + seed].items() if TOWER not in name}
            for index, kind in enumerate(KINDS)
        }
        path = folder / f"seed{seed}.pt"
        torch.save({"log": log} | kinds, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)


def load(stack: Stack, folder: Path) -> dict[str, object]:
    """Put into the networks what they learnt in an earlier run; what it was is returned."""
    seeds = stack.setting.seeds
    files = [
        torch.load(folder / f"seed{seed}.pt", map_location="cpu", weights_only=True) for seed in range(seeds)
    ]
    for index, kind in enumerate(KINDS):
        for seed, file in enumerate(files):
            stack.networks.put(index * seeds + seed, file[kind])
    return dict(files[0]["log"])


def read(stack: Stack, frames: int) -> list[dict[str, object]]:
    """The scores of both kinds about so many frames, in all ways; every clip is drawn and encoded once."""
    setting, ropes = stack.setting, tried(frames)
    exam = Examination(stack.words, setting.examine, frames=frames)
    turnings = [turning_of(rope, tokens_of(TRAINED_FRAMES[-1]), stack.device) for rope in ropes]
    found = exam.hold_each(stack, turnings, at_once=max(min(16, 512 // frames), 1))
    rows: list[dict[str, object]] = []
    for rope, marks in zip(ropes, found, strict=True):
        for index, kind in enumerate(KINDS):
            these = slice(index * setting.seeds, (index + 1) * setting.seeds)
            groups = cells(marks, these, ("all", *GROUPS))
            rows.append({"kind": kind, "frames": frames, "rope": name_of(rope), "cells": groups})
    return rows


def turning_of(rope: RopeScaling | None, trained: int, device: torch.device) -> Turning | None:
    """How the product turns the heads of a network trained on so many positions; None: as it did then."""
    if rope is None:
        return None
    config = LlamaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=trained,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )
    rotary = scaled_rotary(LlamaRotaryEmbedding, config, rope)
    return Turning(speeds=rotary.inv_freq.to(device), strength=float(rotary.attention_scaling))
