"""One step of a few requests taken apart: its kernels, and the ways in which it could be computed.

All changes of `in_one_overlapping` must be 0 and its `same_ids` 1: otherwise a kernel does not wait for what
it reads. `in_three` rounds otherwise, and 32 layers make more of it: a fifth of `logits_spread` on an H200.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpu_engine import CONTEXT, Figures, one_batch, products
from gpu_shapes import Bench, timed_s, words
from llava_next_video.engine import Engine, SamplingOptions
from llava_next_video.engine.graphs import DecodeGraphs, Recorder, Replay
from llava_next_video.engine.roofline import Work
from llava_next_video.inputs import ModelInputs

REPLAYS = 50
MOST_S = 20.0
"""After so many seconds no other launch is tried."""
KEPT: list[object] = []
"""Graphs, which must not be thrown away while others share their memory."""

LAUNCHES: Mapping[str, Mapping[str, int]] = {
    "as_it_is": {},
    "tokens_32": {"tokens": 32},
    "warps_16": {"warps": 16},
    "warps_4": {"warps": 4},
    "half_the_splits": {"programs": 1056, "at_once": 264},
    "least_64": {"least": 64},
}
"""Changes of how attention is launched."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is computed: attention in one launch or three, kernels overlapping or in turn."""

    in_one: bool
    overlapping: bool

    def on(self, attention: Any) -> Callable[[], None]:
        """Compute so from now on; what comes back sets everything as it was."""
        restore, before = let_overlap(allowed=self.overlapping), attention.few
        attention.few = replace(before, rows=10**6 if self.in_one else 0, tokens=10**6)

        def undo() -> None:
            attention.few = before
            restore()

        return undo


WAYS = {
    "in_one": Way(True, False),
    "in_one_overlapping": Way(True, True),
    "in_three": Way(False, False),
    "in_three_overlapping": Way(False, True),
}


def kernels(bench: Bench) -> Figures:
    """Steps of 1 and 8 requests in all ways, their kernels, and their products alone."""
    if bench.device.type == "cpu":
        return {}
    engine, machine = bench.engine(), bench.machine()
    work = Work.of(engine.decoder, engine.words, engine.encoder.vision)
    found: Figures = {"bytes_per_s": machine.bytes_per_s}
    for batch in (1, 8):
        found[f"batch_{batch}"] = one_batch(bench, engine, work, machine, batch, CONTEXT[batch], also=ways)
    found["same_ids"] = same_ids(bench, engine)
    for overlapping in (False, True):
        restore = let_overlap(allowed=overlapping)
        found["products_overlapping" if overlapping else "products"] = products(bench, engine, work)
        restore()
    return found


@torch.inference_mode()
def ways(bench: Bench, engine: Engine, batch: int) -> Figures:
    """Graphs of the last step in all ways: milliseconds, kernels, and whether their numbers are equal.

    Besides logits the keys and values that the step left in the last page of each request are compared.
    """
    graphs, attention = parts(engine)
    record = Recorder()
    compute = partial(graphs.compute, torch.zeros(batch, dtype=torch.long, device=bench.device))
    last = [request.pages[-1] for request in engine.scheduler.running]

    def left() -> list[Tensor]:
        return [layer[:, last].clone() for layer in attention.store]

    def far(one: Tensor, other: Tensor) -> float:
        return float((one.float() - other.float()).abs().max())

    recorded = {name: recorded_as(way, attention, record, compute) for name, way in WAYS.items()}
    KEPT.extend([record, *recorded.values()])
    logits = recorded["in_one"]().clone()
    stored = left()
    found: Figures = {"logits_spread": float(logits.std())}
    for name, replay in recorded.items():
        changed = max(far(replay(), logits) for _ in range(REPLAYS))
        layers = [far(one, other) for one, other in zip(left(), stored, strict=True)]
        found[name] = {
            "ms": best_ms(replay),
            "logits_change": changed,
            "first_layer_change": layers[0],
            "keys_and_values_change": max(layers),
            "kernels_us": of_one_step(replay),
        }
        bench.tell(f"batch {batch}, {name}: {found[name]}")
    return found


def launches(bench: Bench) -> Figures:
    """Steps of 1 and 8 requests with other launches of the attention."""
    if bench.device.type == "cpu":
        return {}
    engine, machine = bench.engine(), bench.machine()
    work, until_s = Work.of(engine.decoder, engine.words, engine.encoder.vision), time.perf_counter() + MOST_S
    return {
        f"batch_{batch}": one_batch(
            bench, engine, work, machine, batch, CONTEXT[batch], also=partial(launched, until_s)
        )
        for batch in (1, 8)
    }


@torch.inference_mode()
def launched(until_s: float, bench: Bench, engine: Engine, batch: int) -> Figures:
    """Milliseconds of the last step, overlapping, with each of the launches."""
    graphs, attention = parts(engine)
    record, own = Recorder(), attention.launch_few
    KEPT.append(record)
    compute = partial(graphs.compute, torch.zeros(batch, dtype=torch.long, device=bench.device))
    found: dict[str, float] = {}
    for name, changes in LAUNCHES.items():
        if time.perf_counter() < until_s:
            attention.launch_few = replace(own, **changes)
            replay = recorded_as(WAYS["in_one_overlapping"], attention, record, compute)
            KEPT.append(replay)
            found[name] = best_ms(replay)
    attention.launch_few = own
    bench.tell(f"batch {batch}, launches: {found}")
    return {"launches_ms": found}


def same_ids(bench: Bench, engine: Engine) -> Figures:
    """The share of tokens that requests of all lengths choose as without overlapping kernels, way by way.

    The first run fills the pages that requests share, so that all others begin alike.
    """
    graphs, attention = parts(engine)
    dice = torch.Generator().manual_seed(0)
    lengths = (1, 17, 40, 100, 257, 600, 1216, 3000)
    prompts = [ModelInputs(ids=tuple(words(bench, length, dice))) for length in lengths]
    options = SamplingOptions(max_new_tokens=48, ignore_eos=True)

    def answered(way: Way) -> list[list[int]]:
        KEPT.append(dict(graphs.recorded))
        graphs.recorded.clear()
        undo = way.on(attention)
        answers = engine.generate(prompts, options)
        undo()
        return [list(answer.ids) for answer in answers]

    answered(WAYS["in_one"])
    wanted = answered(WAYS["in_one"])
    found: Figures = {}
    for name, way in WAYS.items():
        ids = answered(way)
        pairs = [
            a == b for one, other in zip(ids, wanted, strict=True) for a, b in zip(one, other, strict=True)
        ]
        found[name] = sum(pairs) / len(pairs)
    bench.tell(f"same ids: {found}")
    return found


def parts(engine: Engine) -> tuple[DecodeGraphs, Any]:
    """What an engine on a GPU replays, and its attention (whose class needs Triton)."""
    assert engine.runner.graphs is not None
    return engine.runner.graphs, engine.runner.attention


def recorded_as(way: Way, attention: Any, record: Recorder, compute: Callable[[], Tensor]) -> Replay:
    """The graph of a step that is computed in that way."""
    undo = way.on(attention)
    try:
        return record(compute)
    finally:
        undo()


def best_ms(replay: Replay) -> float:
    """Milliseconds of a graph: the best of three times twenty."""
    return min(1000 * timed_s(replay, 20) for _ in range(3))


def of_one_step(replay: Replay) -> dict[str, Any]:
    """Microseconds of the kernels of a graph, by name: all of a name together, and how many."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        replay()
        torch.cuda.synchronize()
    events = [event for event in profile.key_averages() if event.device_time_total]
    found: dict[str, Any] = {"all": sum(event.count for event in events)}
    for event in sorted(events, key=lambda event: -event.device_time_total):
        found[f"{event.count} x {event.key[:90]}"] = round(event.device_time_total, 1)
    return found


def let_overlap(*, allowed: bool) -> Callable[[], None]:
    """Whether kernels may begin before the one before them has ended; what comes back sets it as it was."""
    from llava_next_video.engine.kernels import overlap  # needs Triton, which a CPU may lack

    def let(allowed: bool) -> None:
        overlap.ALLOWED = allowed
        overlap.overlapped.cache_clear()

    before = overlap.ALLOWED
    let(allowed)
    return lambda: let(before)


SECTIONS: Mapping[str, Callable[[Bench], Figures]] = {"kernels": kernels, "launches": launches}
