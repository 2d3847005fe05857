"""The tiny checkpoint, from scratch: tower, reading, seeing, align, sft, for several seeds side by side.

    python train.py --seconds 400 --device cuda          # minutes on a GPU
    python train.py --seconds 9000 --seeds 1 --batch 12   # hours on a processor

`--seconds` is what all stages together may take, compiling of recorded steps aside; states are saved.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from network import FRAMES, make_network
from networks import LANGUAGE, TOWER, Model, Networks
from optimizer import MuonAdamW, schedule
from painting import PICTURE_SIZES, filmed
from pool import Makers, Pool
from recorded import Recorded, Told
from scenes import Mix
from score import Examiner, overall, table
from stages import Heads, Seen, Text, answer_loss, code, fact_loss, look, read, tower_loss
from start import start
from text import HEAVY, Words, choose_late, make_tokenizer
from torch import Tensor, nn

from llava_next_video.size import Size

# How much of the time each stage takes, its rate, and the share of its time in which the rate falls.
STAGES = {
    "tower": (0.14, 0.01, 0.5),
    "reading": (0.2, 0.008, 0.4),
    "seeing": (0.3, 0.006, 0.65),
    "align": (0.01, 0.004, 0.5),
    "sft": (0.35, 0.004, 0.95),
}
MANY = (2.0, 22.0, 46.0, 30.0)
ASKED = Mix(things=(3, 30, 40, 27), alike=0.4, unequal=0.6, focus=0.4, choose=choose_late, heavy=HEAVY)
MIXES = [
    Mix(things=MANY, alike=0.5, unequal=0.5, focus=0.4),
    Mix(things=MANY, alike=0.5, unequal=0.5, focus=0.4, still=True),
    ASKED,
    replace(ASKED, still=True),
]
"""Clips and pictures while look-ups are learnt, then nearer to what will be asked."""
Kind = tuple[str, Size | None]
"""What a step does, and with pictures of which size; None are clips."""
ROOM = 156
APART, UNTOLD = 0.3, 0.6
"""Shares of the seeing stage: reading goes on beside it until the first, facts are told until the second."""
PICTURES = 0.15
"""Share of the steps with pictures."""
EXAMINATION, PREPARATION = 20.0, 15.0
"""Seconds kept free for the examinations, and for compiling and recording each stage, before a deadline."""
BEGUN = time.monotonic()


@dataclass
class Clock:
    """How much of a stage is over, in seconds or steps."""

    length: float
    counted: bool
    device: torch.device
    steps: int = 0

    def __post_init__(self) -> None:
        self.begun = time.monotonic()

    def done(self) -> float:
        """The share that is over, before the next step."""
        self.steps += 1
        if self.counted:
            return (self.steps - 1) / self.length
        if self.steps % 10 == 0 and self.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.monotonic() - self.begun) / self.length


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage does: its kinds of steps, which comes next, and the losses of one."""

    kinds: list[Kind]
    choose: Callable[[float], Kind]
    losses: Callable[[Kind], Told]
    recorded: bool = True


class Run:
    """Networks, their scenes, and the stages that they pass."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.device = given, torch.device(given.device)
        self.words = Words(make_tokenizer())
        self.head = torch.tensor(self.words.head, device=self.device)
        self.mixes = [replace(mix, things=tuple(given.things or mix.things)) for mix in MIXES]
        self.makers = Makers(self.mixes, [ROOM] * len(MIXES), given.workers, given.seed)
        networks = []
        for seed in range(given.seed, given.seed + given.seeds):
            network = make_network(self.words.tokenizer, seed)
            if given.start:
                network.load_state_dict(torch.load(given.start / f"seed{seed}.pt"), strict=False)
            else:
                start(network, self.words.tokenizer)
            networks.append(network)
        self.networks = Networks(networks).to(self.device)
        self.model = Model(self.networks, compiled=given.compile)
        self.plain = Model(self.networks, compiled=False)
        self.film = torch.compile(filmed, dynamic=False) if given.compile else filmed
        self.pools = [Pool(1 if mix.still else FRAMES, ROOM, given.capacity, self.device) for mix in MIXES]
        self.rng = random.Random(given.seed)
        self.examiner = Examiner(self.words, clips=given.examine, pictures=given.examine)
        self.done = torch.zeros((), device=self.device)
        self.log: list[dict[str, object]] = []
        self.saved = _since()

    def learn(self, stage: str, weights: dict[str, nn.Parameter], work: Work) -> None:
        """One stage, in the time or the steps that are left for it."""
        _, rate, cool = STAGES[stage]
        optimizer = MuonAdamW(weights, muon_lr=self.given.rate or rate)
        self.networks.requires_grad_(False)
        for weight in weights.values():
            weight.requires_grad_(True)

        def step(kind: Kind) -> Told:
            losses, told = work.losses(kind)
            sum(losses).sum().backward()
            optimizer.step()
            return [loss.detach() for loss in losses], told

        recorded = Recorded(step, self.device)
        optimizer.scale.zero_()
        if work.recorded:
            recorded.prepare(work.kinds)
        length = self.length(stage)
        clock, shown = Clock(length, self.given.seconds is None, self.device), -1.0
        while (done := clock.done()) < 1:
            self.done.fill_(done)
            optimizer.scale.fill_(schedule(done, cool=cool))
            kind = work.choose(done)
            losses, told = recorded(kind)
            if clock.steps % 16 == 1:
                self.makers.fill(self.pools)
            if done - shown > 0.1:
                shown = done
                each = " ".join(f"{name} {_list(share)}" for name, share in told.items())
                losses = " + ".join(_list(loss) for loss in losses)
                made = " ".join(str(pool.made) for pool in self.pools)
                where = f"{stage} {done:.2f} of {length:.0f}, step {clock.steps}, {_since():.0f}s"
                print(f"{where} | {kind[0]} loss {losses} | {each} | made {made}", flush=True)
                self.save(every=20.0)
        self.log.append({"stage": stage, "steps": clock.steps, "seconds": time.monotonic() - clock.begun})
        self.save()

    def length(self, stage: str) -> float:
        """How many seconds (or steps) a stage gets of what is left."""
        names = [name for name in STAGES if name in self.given.stages]
        share = STAGES[stage][0]
        length = (self.given.steps or self.given.seconds) * share / sum(STAGES[name][0] for name in names)
        if self.given.steps:
            return length
        rest = names[names.index(stage) :]
        left = self.given.deadline - _since() - EXAMINATION - PREPARATION * (len(rest) - 1)
        return min(length, left * share / sum(STAGES[name][0] for name in rest))

    def save(self, *, every: float = 0.0) -> None:
        """The weights of each seed in half precision, whole or not at all, every so many seconds at most."""
        if _since() - self.saved < every:
            return
        begun = _since()
        self.given.out.mkdir(parents=True, exist_ok=True)
        for index, state in enumerate(self.networks.states(torch.half)):
            path = self.given.out / f"seed{self.given.seed + index}.pt"
            # One write: a zip file of many small ones takes seconds on some disks.
            torch.save(state, written := io.BytesIO())
            path.with_suffix(".part").write_bytes(written.getvalue())
            path.with_suffix(".part").replace(path)
        (self.given.out / "train.json").write_text(json.dumps(self.log, indent=1))
        self.saved = _since()
        print(f"saved in {self.saved - begun:.1f}s", flush=True)

    def examine(self, stage: str, *, told: bool = False) -> None:
        """Print and keep the scores of all seeds."""
        begun = time.monotonic()
        marks = self.examiner.score(self.plain, told=told)
        for index in range(self.networks.seeds):
            print(f"{stage}, seed {self.given.seed + index}\n{table(marks, index)}", flush=True)
        self.log.append({"stage": stage, "scores": overall(marks)})
        print(f"{stage}: {overall(marks)} ({time.monotonic() - begun:.0f}s)", flush=True)

    def scenes(self, mix: int, size: Size | None, share: float = 1.0) -> dict[str, Tensor]:
        """A batch for every seed."""
        count = max(int(self.given.batch * share / (2 if size else 1)), 1)
        return self.pools[mix + bool(size)].draw(count * self.networks.seeds)

    def some(self, name: str) -> Kind:
        """Clips, or now and then pictures of some size."""
        return name, self.rng.choice(PICTURE_SIZES) if self.rng.random() < PICTURES else None

    def tower(self, heads: Heads) -> Work:
        def losses(kind: Kind) -> Told:
            many = self.pools[0].draw(self.given.frames * self.networks.seeds)
            fine = self.pools[1].draw(max(self.given.frames // 16, 1) * self.networks.seeds)
            loss, told = tower_loss(self.model, heads, many, fine, self.film)
            return [loss], told

        return Work(kinds=[("frames", None)], choose=lambda done: ("frames", None), losses=losses)

    def told(self, size: Size | None) -> Told:
        """Answers to questions about scenes of which a few tokens of facts are told."""
        rows = self.scenes(0, size, 1.5)
        text = Text.of(rows, self.networks.seeds)
        return [answer_loss(read(self.model, self.head, rows, size, text), text)], {}

    def reading(self) -> Work:
        return Work(
            kinds=_kinds("told"),
            choose=lambda done: self.some("told"),
            losses=lambda kind: self.told(kind[1]),
        )

    def seeing(self) -> Work:
        def losses(kind: Kind) -> Told:
            if kind[0] == "told":
                return self.told(kind[1])
            seen = Seen(self.model, self.scenes(0, kind[1]), kind[1], self.film)
            facts, text = seen.facts(), Text.of(seen.rows, self.networks.seeds)
            share = ((UNTOLD - self.done) / (UNTOLD - APART)).clamp(0, 1)
            tell = torch.rand(seen.visual.shape[:2], device=self.device) < share
            logits, middle = look(self.model, self.head, seen, text, tell, code(facts))
            loss, told = fact_loss(middle, facts, seen.tokens)
            weight = torch.where(self.done < APART, 1.0, 1 - 0.5 * self.done)
            return [weight * loss, answer_loss(logits, text)], told

        def choose(done: float) -> Kind:
            return self.some("told" if done < APART and self.rng.random() < 0.35 else "seen")

        return Work(kinds=_kinds("seen") + _kinds("told"), choose=choose, losses=losses)

    def asking(self, *, model: Model | None = None, recorded: bool = True) -> Work:
        def losses(kind: Kind) -> Told:
            seen = Seen(self.model, self.scenes(2, kind[1]), kind[1], self.film)
            text = Text.of(seen.rows, self.networks.seeds)
            return [answer_loss(look(model or self.model, self.head, seen, text)[0], text)], {}

        return Work(
            kinds=_kinds("asked"),
            choose=lambda done: self.some("asked"),
            losses=losses,
            recorded=recorded,
        )


def _kinds(name: str) -> list[Kind]:
    return [(name, None), *((name, size) for size in PICTURE_SIZES)]


def _since() -> float:
    return time.monotonic() - BEGUN


def _list(values: Tensor) -> str:
    return "/".join(f"{value:.3f}" for value in values.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float, help="time of all stages together")
    length.add_argument("--steps", type=int, help="steps of all stages together")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, help="in place of the rate of each stage")
    parser.add_argument("--batch", type=int, default=64, help="clips a step and seed")
    parser.add_argument(
        "--frames", type=int, default=320, help="single frames a step and seed, for the tower"
    )
    parser.add_argument("--things", type=float, nargs=4, help="weights of 0 1 2 3, of all mixes")
    parser.add_argument("--capacity", type=int, default=300_000, help="scenes that each pool keeps")
    parser.add_argument("--workers", type=int, default=12, help="processes that invent scenes")
    parser.add_argument("--examine", type=int, default=192, help="scenes of each kind in an examination")
    parser.add_argument("--compile", action="store_true", help="compile layers and drawing")
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds from the start; stages shrink")
    parser.add_argument("--stages", choices=tuple(STAGES), nargs="+", default=list(STAGES))
    parser.add_argument("--start", type=Path, help="folder of states to go on from")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "states")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch._dynamo.config.cache_size_limit = 64  # one layer function, several shapes and stages
    torch.set_float32_matmul_precision("high")
    torch.set_flush_denormal(True)
    run = Run(given)
    try:
        _all_stages(run, given)
    finally:
        run.makers.stop()


def _all_stages(run: Run, given: argparse.Namespace) -> None:
    everything = dict(run.networks.named_parameters())
    tower = {name: weight for name, weight in everything.items() if TOWER.replace(".", "/") in name}
    words = {name: weight for name, weight in everything.items() if LANGUAGE.replace(".", "/") in name}
    join = {name: weight for name, weight in everything.items() if name not in tower and name not in words}
    for name in (name for name in STAGES if name in given.stages):
        late = name in ("align", "sft")
        early = [1, 0.2, 0, 0] if name in ("tower", "reading") else [0.6, 0.12, 0.3, 0.06]
        run.makers.want([0, 0, 1, 0.15] if late else early)
        needed = [2, 3] if late else [0, 1]
        if any(run.pools[which].made < 2048 for which in needed):
            run.makers.fill(run.pools, least=min(2048, 16 * given.batch))
        if name == "tower":
            heads = Heads(run.networks.seeds).to(run.device)
            run.learn(name, tower | dict(heads.named_parameters(prefix="head")), run.tower(heads))
        elif name == "reading":
            run.learn(name, words, run.reading())
        elif name == "seeing":
            run.learn(name, words | join, run.seeing())
        elif name == "align":
            run.learn(name, join, run.asking(model=run.plain, recorded=False))
        else:
            run.learn(name, words | join, run.asking())
        if name in ("reading", "seeing", "sft"):
            run.examine(f"after {name}", told=name == "reading")
    run.save()


if __name__ == "__main__":
    main()
