"""A made-up load on an engine, and what it took.

Clips of noise and random words: the time of a network does not depend on what it sees.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from llava_next_video.engine.engine import Engine
from llava_next_video.engine.request import Output
from llava_next_video.engine.roofline import Machine, Work, measured
from llava_next_video.engine.sampling_options import SamplingOptions
from llava_next_video.errors import ConfigError
from llava_next_video.inputs import Medium, ModelInputs

_WORDS = 1000
_BEFORE = 8  # words that stand before each clip, the same everywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Questions about clips that come in at random moments, in random order.

    Attributes:
        videos: Different clips.
        questions: Questions about each.
        frames: Frames of each clip.
        prompt_tokens: Words of each question, in tokens.
        new_tokens: Tokens of each answer.
        per_second: Requests that arrive in a second on average; 0: all at once.
        seed: Another one gives other clips, words and moments.
    """

    videos: int = 4
    questions: int = 4
    frames: int = 8
    prompt_tokens: int = 32
    new_tokens: int = 64
    per_second: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("videos", "questions", "frames", "prompt_tokens", "new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.per_second < float("inf"):
            raise ConfigError(f"the arrival rate is {self.per_second}; it must be 0 (all at once) or more")

    def arrivals_s(self) -> list[float]:
        """When each request comes: a Poisson process, or all at once.

        >>> Workload(videos=1, questions=3).arrivals_s()
        [0.0, 0.0, 0.0]
        """
        dice = random.Random(self.seed)
        moments, now = [], 0.0
        for _ in range(self.videos * self.questions):
            moments.append(now)
            now += dice.expovariate(self.per_second) if self.per_second else 0.0
        return moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle and the far end of many durations, in seconds."""

    p50_s: float
    p99_s: float

    @classmethod
    def of(cls, durations_s: Sequence[float]) -> Spread:
        """Percentiles of durations; not a number when there are none."""
        if not durations_s:
            return cls(p50_s=float("nan"), p99_s=float("nan"))
        middle, far = np.percentile(durations_s, [50, 99])
        return cls(p50_s=float(middle), p99_s=float(far))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a load took.

    Attributes:
        wall_s: From the first arrival to the last token.
        busy_s: Of these, seconds in which the engine computed.
        first_token: From the arrival of a request to its first token, waiting included.
        each_token: Between the tokens of an answer, on average over the answer.
        prefix_hits: Share of prompt tokens whose keys and values were there already.
        video_hits: Share of requests whose clip needed no encoding.
        preemptions: Requests that had to give their pages back for a while.
        machine: What the machine does at its best, as measured beside the load.
        multiplications_per_s: What the matrix products did of that while the engine computed.
        bytes_per_s: Weights that were read, likewise; keys and values come on top.
        roofline: Share of `busy_s` that the matrix products need at the machine's measured best.
    """

    requests: int
    wall_s: float
    busy_s: float
    requests_per_s: float
    answer_tokens_per_s: float
    first_token: Spread
    each_token: Spread
    prefix_hits: float
    video_hits: float
    preemptions: int
    machine: Machine
    multiplications_per_s: float
    bytes_per_s: float
    roofline: float


@dataclass(slots=True, kw_only=True)
class _Run:
    """One request under way."""

    due_s: float
    first_s: float | None = None
    last_s: float = 0.0
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class _Clock:
    """Seconds of computing, and what they would be at least."""

    busy_s: float = 0.0
    least_s: float = 0.0
    multiplications: int = 0
    bytes: int = 0
    runs: dict[int, _Run] = field(default_factory=dict)


def prompts(engine: Engine, load: Workload) -> list[ModelInputs]:
    """The questions of a load, in the order in which they are asked."""
    config = engine.encoder.vision.config
    vision = config.vision_config
    dice = random.Random(load.seed)
    marks = (config.image_token_index, config.video_token_index)
    words = [id for id in range(min(engine.words.vocabulary, _WORDS)) if id not in marks]
    start = tuple(dice.choices(words, k=_BEFORE))
    made = []
    for number in range(load.videos):
        generator = torch.Generator().manual_seed(load.seed * 1_000_003 + number)
        shape = (load.frames, vision.num_channels, vision.image_size, vision.image_size)
        clip = Medium(
            kind="video",
            start=_BEFORE,
            tokens=config.video_layout(load.frames).tokens,
            key=hashlib.sha256(f"{load.seed} {number} {load.frames}".encode()).digest(),
            size=None,
            pixels=torch.randn(shape, generator=generator),
        )
        for _ in range(load.questions):
            question = dice.choices(words, k=load.prompt_tokens)
            made.append(
                ModelInputs(ids=(*start, *[config.video_token_index] * clip.tokens, *question), media=(clip,))
            )
    dice.shuffle(made)
    return made


def bench(
    engine: Engine,
    load: Workload,
    *,
    machine: Machine | None = None,
    told: Callable[[int], None] | None = None,
) -> Figures:
    """Put a load on an engine that does nothing else.

    Args:
        engine: Whose caches may be warm.
        load: What to ask.
        machine: What the machine does at its best; measured now, by default.
        told: Hears how many answers are complete.

    Raises:
        CapacityError: A request of this load does not fit the engine.
    """
    decoder = engine.decoder
    if machine is None:
        quantize = engine.settings.quantize
        machine = measured(decoder.dtype, quantize, decoder.device, kernels=decoder.kernels)
    work = Work.of(decoder, engine.words, engine.encoder.vision)
    waiting = deque(zip(load.arrivals_s(), prompts(engine, load), strict=True))
    options = SamplingOptions(max_new_tokens=load.new_tokens, ignore_eos=True)
    before, encoded = engine.load(), engine.features.misses
    clock, done = _Clock(), 0
    start = time.perf_counter()
    while waiting or engine.busy:
        now = time.perf_counter() - start
        while waiting and waiting[0][0] <= now:
            due, prompt = waiting.popleft()
            clock.runs[engine.add(prompt, options)] = _Run(due_s=due)
        if not engine.busy:
            time.sleep(min(waiting[0][0] - now, 0.05))
            continue
        done += _step(engine, clock, work, machine, start)
        if told is not None:
            told(done)
    wall, after = time.perf_counter() - start, engine.load()
    asked, answered = (
        after.prompt_tokens - before.prompt_tokens,
        after.generated_tokens - before.generated_tokens,
    )
    runs = clock.runs.values()
    return Figures(
        requests=len(runs),
        wall_s=wall,
        busy_s=clock.busy_s,
        requests_per_s=len(runs) / wall,
        answer_tokens_per_s=answered / wall,
        first_token=Spread.of([run.first_s - run.due_s for run in runs if run.first_s is not None]),
        each_token=Spread.of(
            [(run.last_s - run.first_s) / (run.tokens - 1) for run in runs if run.first_s and run.tokens > 1]
        ),
        prefix_hits=(after.cached_tokens - before.cached_tokens) / asked,
        video_hits=1 - (engine.features.misses - encoded) / len(runs),
        preemptions=after.preemptions - before.preemptions,
        machine=machine,
        multiplications_per_s=clock.multiplications / clock.busy_s,
        bytes_per_s=clock.bytes / clock.busy_s,
        roofline=clock.least_s / clock.busy_s,
    )


def _step(engine: Engine, clock: _Clock, work: Work, machine: Machine, start: float) -> int:
    """One step of the engine, booked; gives how many requests it finished."""
    counters, frames = engine.scheduler.counters, engine.encoder.frames
    tokens, begin = counters.computed_tokens, time.perf_counter()
    outputs: list[Output] = engine.step()
    end = time.perf_counter()
    clock.busy_s += end - begin
    frames, tokens = engine.encoder.frames - frames, counters.computed_tokens - tokens
    clock.least_s += work.least_s(machine, frames=frames, tokens=tokens, answer_tokens=len(outputs))
    clock.multiplications += work.multiplications(frames=frames, tokens=tokens, answer_tokens=len(outputs))
    clock.bytes += work.weight_bytes if tokens else 0
    for output in outputs:
        run = clock.runs[output.request_id]
        if output.ids:
            run.first_s = run.first_s or end - start
            run.last_s, run.tokens = end - start, run.tokens + len(output.ids)
    return sum(output.finish is not None for output in outputs)
