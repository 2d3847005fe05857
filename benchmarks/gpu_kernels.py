"""One step of a few requests taken apart: its kernels, and the ways in which it could be computed.

Run them first and alone on a new GPU, and the other sections with what they found: see `gpu.py`. All changes
of `in_one_overlapping` must be 0 and its `same_ids` 1: otherwise a kernel does not wait for what it reads.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
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
    "tokens_64": {"tokens": 64},
    "tokens_64_warps_16": {"tokens": 64, "warps": 16},
    "warps_4": {"warps": 4},
    "twice_the_splits": {"programs": 2112, "at_once": 528},
    "half_the_splits": {"programs": 528, "at_once": 132},
    "least_64": {"least": 64},
}
"""Changes of how attention is launched."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is computed: attention in one launch or three, kernels overlapping or in turn."""

    in_one: bool
    overlapping: bool


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
    work = Work.of(engine.decoder, engine.encoder.vision)
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
    work, until_s = Work.of(engine.decoder, engine.encoder.vision), time.perf_counter() + MOST_S
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
    record, own = Recorder(), attention.launch_apart
    KEPT.append(record)
    compute = partial(graphs.compute, torch.zeros(batch, dtype=torch.long, device=bench.device))
    found: dict[str, float] = {}
    for name, changes in LAUNCHES.items():
        if time.perf_counter() < until_s:
            attention.launch_apart = replace(own, **changes)
            replay = recorded_as(WAYS["in_one_overlapping"], attention, record, compute)
            KEPT.append(replay)
            found[name] = best_ms(replay)
    attention.launch_apart = own
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
        restore, before = let_overlap(allowed=way.overlapping), attention.in_one
        attention.in_one = way.in_one
        answers = engine.generate(prompts, options)
        attention.in_one = before
        restore()
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
    restore, before = let_overlap(allowed=way.overlapping), attention.in_one
    attention.in_one = way.in_one
    try:
        return record(compute)
    finally:
        attention.in_one = before
        restore()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How all sections compute: what differs from the package's own choice.

    Attributes:
        way: Attention in one launch or three, kernels overlapping or in turn.
        launch: Changes of how attention in one launch is launched.
    """

    way: Way
    launch: Mapping[str, int]

    def on(self, engine: Engine) -> None:
        """Let an engine compute so; the way of overlapping is everyone's."""
        attention: Any = engine.runner.attention
        attention.in_one = self.way.in_one
        attention.launch_apart = replace(attention.launch_apart, **self.launch)


def chosen(path: Path) -> Choice:
    """The fastest of what a file of the section `kernels` found right; without one, what was measured before.

    Overlapping kernels are right if they changed nothing; attention in one launch if it differs from three
    launches by rounding only.
    """
    try:
        figures = json.loads(path.read_text())["figures"]
        way = fastest(figures["kernels"])
    except (OSError, ValueError, KeyError):
        return Choice(way=WAYS["in_three_overlapping"], launch={})
    batches = [figures.get("launches", {}).get(f"batch_{batch}", {}) for batch in (1, 8)]
    tried = [batch.get("launches_ms", {}) for batch in batches]
    both = [name for name in LAUNCHES if all(name in times for times in tried)] or ["as_it_is"]
    launch = min(both, key=lambda name: sum(times[name] / times["as_it_is"] for times in tried if times))
    return Choice(way=way, launch=LAUNCHES[launch])


def fastest(found: Mapping[str, Any]) -> Way:
    """Of the ways whose numbers are right."""
    batches = [found["batch_1"], found["batch_8"]]
    still = found["same_ids"]["in_one_overlapping"] == 1.0 and all(
        batch["in_one_overlapping"][change] == 0.0
        for batch in batches
        for change in ("logits_change", "first_layer_change", "keys_and_values_change")
    )
    close = all(batch["in_three"]["logits_change"] < 0.1 * batch["logits_spread"] for batch in batches)
    right = ["in_three", "in_three_overlapping"]
    if close:
        right += ["in_one", "in_one_overlapping"] if still else ["in_one"]
    return WAYS[
        min(right, key=lambda way: sum(batch[way]["ms"] / batch["in_three"]["ms"] for batch in batches))
    ]


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
