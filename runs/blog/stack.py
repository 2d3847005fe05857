"""Networks of several seeds that learn side by side, from scenes that never end, until a time is up.

Stands on `runs/tiny`, whose folder `run.py` puts on the path.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from network import make_network
from networks import LANGUAGE, TOWER, Model, Networks
from optimizer import MuonAdamW, schedule
from painting import PICTURE_SIZES
from pool import Makers, Pool
from scenes import Mix, rows
from stages import Seen, Text, answer_loss, look
from start import start
from text import Words, make_tokenizer
from torch import Tensor, nn

ROOM = 156
"""Tokens of packed questions behind one clip or picture."""
SMALL = (2.0, 45.0, 53.0, 0.0)
"""How often there are 0, 1, 2 or 3 things."""
ENOUGH = 512
"""Scenes that must be there before learning begins."""

Losses = list[Tensor]
"""Of a step: parts of the loss, each one number a seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all parts share.

    Attributes:
        device: Where networks live.
        start: Folder of `seed0.pt`, ... as `runs/tiny/train.py` leaves them.
        out: Where states and figures go.
        seeds: Networks side by side.
        batch: Clips a step and seed.
        workers: Processes that invent scenes, for each part, twice as many in (a); 0: none.
        examine: Scenes of each kind in an examination.
        begun: Seconds since the epoch when all began.
        deadline: Seconds after that when all has to be over.
        steps: Of each stage, in place of its share of the time.
        video_steps: Of the three ways to learn from clips, if the time allows.
        rounds: Of preferences.
        learnt: Folder of what (d) left in an earlier run, to be read again without learning.
    """

    device: str
    start: Path
    out: Path
    seeds: int
    batch: int
    workers: int
    examine: int
    begun: float
    deadline: float
    steps: int | None
    video_steps: int
    rounds: int
    learnt: Path | None = None

    def until(self, share: float) -> float:
        """The moment when that share of the time is over."""
        return self.begun + share * self.deadline


class Supply:
    """Scenes of several mixes on the device."""

    def __init__(
        self, setting: Setting, mixes: list[Mix], words: Words, *, workers: int | None = None
    ) -> None:
        self.mixes, self.words = mixes, words
        workers = setting.workers if workers is None else workers
        device = torch.device(setting.device)
        capacity = 100_000 if workers else 64
        self.pools = [Pool(1 if mix.still else mix.frames, ROOM, capacity, device) for mix in mixes]
        self.rng, self.makers = random.Random(0), None
        if workers:
            self.makers = Makers(mixes, [ROOM] * len(mixes), workers, 0)

    def want(self, *shares: float) -> None:
        """How much of each mix is made from now on; waits until there is enough of those wanted."""
        if self.makers is None:
            for mix, pool, share in zip(self.mixes, self.pools, shares, strict=True):
                if share:
                    pool.put(rows(self.rng, 16, mix, self.words, ROOM))
            return
        self.makers.want(list(shares))
        self.makers.fill(self.pools, least=ENOUGH)

    def fill(self) -> None:
        """Take in what is ready."""
        if self.makers is not None:
            self.makers.fill(self.pools)

    def stop(self) -> None:
        """End the processes."""
        if self.makers is not None:
            self.makers.stop()


class Stack:
    """The networks of one part, and what they can be taught."""

    def __init__(self, setting: Setting, states: Path, *, tower_only: bool = False, copies: int = 1) -> None:
        """Networks from saved states, each so many times; with `tower_only` the rest begins anew."""
        self.setting, self.device = setting, torch.device(setting.device)
        self.words = Words(make_tokenizer())
        self.head = torch.tensor(self.words.head, device=self.device)
        networks = []
        for seed in [*range(setting.seeds)] * copies:
            network = make_network(self.words.tokenizer, seed)
            state = torch.load(states / f"seed{seed}.pt", map_location="cpu", weights_only=True)
            if tower_only:
                start(network, self.words.tokenizer)
                state = {name: weight for name, weight in state.items() if name.startswith(TOWER)}
            lacking, strange = network.load_state_dict(state, strict=False)
            if strange or not (tower_only or set(lacking) <= {"lm_head.weight"}):  # tied to the embeddings
                raise ValueError(f"{states}: no states of runs/tiny; {[*strange, *lacking][0]} does not fit")
            networks.append(network)
        self.networks = Networks(networks).to(self.device)
        self.model = Model(self.networks, compiled=False)
        self.rng = random.Random(0)
        named = dict(self.networks.named_parameters())
        tower, language = TOWER.replace(".", "/"), LANGUAGE.replace(".", "/")
        self.language = {name: weight for name, weight in named.items() if language in name}
        self.join = {
            name: weight for name, weight in named.items() if tower not in name and language not in name
        }

    @property
    def seeds(self) -> int:
        """Networks side by side."""
        return self.networks.seeds

    def size(self) -> tuple[int, int]:
        """Of the pictures of a step."""
        return self.rng.choice(PICTURE_SIZES)

    def draw(self, pool: Pool, count: int) -> dict[str, Tensor]:
        """So many scenes for every network."""
        return pool.draw(max(count, 1) * self.seeds)

    def asked(self, pool: Pool, count: int, *, still: bool, tiled: bool = True) -> Tensor:
        """The loss of answers about pictures or clips."""
        size = self.size() if still else None
        seen = Seen(self.model, self.draw(pool, count), size, tiled=tiled)
        text = Text.of(seen.rows, self.seeds)
        return answer_loss(look(self.model, self.head, seen, text)[0], text)

    def lessons(
        self,
        stage: str,
        weights: dict[str, nn.Parameter],
        losses: Callable[[float], Losses],
        pace: Iterator[float],
        *,
        rate: float,
        cool: float,
        supply: Supply | None = None,
    ) -> Iterator[dict[str, object]]:
        """Learn at a pace, step by step; after each, what the stage has been so far."""
        optimizer = MuonAdamW(weights, muon_lr=rate)
        self.networks.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)
        begun, shown = time.time(), -1.0
        for steps, done in enumerate(pace, 1):
            found = losses(done)
            sum(found).sum().backward()
            optimizer.scale.fill_(schedule(done, cool=cool))
            optimizer.step()
            if supply is not None and steps % 16 == 1:
                supply.fill()
            if done - shown > 0.1:
                shown = done
                made = [pool.made for pool in supply.pools] if supply else []
                print(
                    f"{self.clock()} {stage} {done:.2f} step {steps} {_list(found)} made {made}", flush=True
                )
            told = {"stage": stage, "steps": steps, "seconds": round(time.time() - begun, 1)}
            yield told
        self.networks.requires_grad_(False)
        print(f"{self.clock()} {told} {_list(found)}", flush=True)

    def clock(self) -> str:
        """Seconds since all began."""
        return f"{time.time() - self.setting.begun:5.0f}s"

    def save(self, folder: Path) -> None:
        """The weights of each network in half precision, each file whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for seed, state in enumerate(self.networks.states(torch.half)):
            path = folder / f"seed{seed}.pt"
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)


def learnt(lessons: Iterator[dict[str, object]]) -> dict[str, object]:
    """Take all steps of a stage; what it has been."""
    [told] = deque(lessons, maxlen=1)
    return told


def paced(setting: Setting, until: float, steps: int | None = None) -> Iterator[float]:
    """The share of a stage that is over, from 0 to below 1: by the clock, or by steps if they are over first.

    The setting's own number of steps replaces both.
    """
    begun, count, done = time.time(), 0, 0.0
    while done < 1:
        yield done
        count += 1
        if setting.steps is not None:
            done = count / setting.steps
            continue
        if count % 10 == 0 and setting.device == "cuda":
            torch.cuda.synchronize()
        done = (time.time() - begun) / max(until - begun, 1e-3)
        if steps is not None:
            done = max(done, count / steps)


def _list(losses: Losses) -> str:
    return " + ".join("/".join(f"{value:.3f}" for value in loss.tolist()) for loss in losses)
