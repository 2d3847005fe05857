"""One step of a few requests taken apart: its kernels, and the ways in which it could be computed.

Run it first and alone on a new GPU: `python benchmarks/gpu.py kernels --overlap`. All changes of
`in_one_overlapping` must be 0 and its `same_ids` 1, before kernels may overlap by default.
"""

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
KEPT: list[object] = []
"""Graphs, which must not be thrown away while others share their memory."""

LAUNCHES: Mapping[str, dict[str, int]] = {
    "as_it_is": {},
    "tokens 64": {"tokens": 64},
    "tokens 64, warps 16": {"tokens": 64, "warps": 16},
    "warps 4": {"warps": 4},
    "tokens 64, warps 4": {"tokens": 64, "warps": 4},
    "least 64": {"least": 64},
    "half as many splits": {"programs": -2, "at_once": -2},
}
"""Changes of how attention is launched; -2 is half of what it is."""


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
    """Steps of 1 and 8 requests in all ways, their kernels, and other launches of the attention."""
    if bench.device.type == "cpu":
        return {}
    engine, machine = bench.engine(), bench.machine()
    work = Work.of(engine.decoder, engine.encoder.vision)
    found: Figures = {"bytes_per_s": machine.bytes_per_s}
    for overlapping in (False, True):
        restore = let_overlap(allowed=overlapping)
        name = "products_overlapping" if overlapping else "products"
        found[name] = products(bench, engine, work)
        restore()
    for batch in (1, 8):
        found[f"batch_{batch}"] = one_batch(bench, engine, work, machine, batch, CONTEXT[batch], also=ways)
    return found | {"same_ids": same_ids(bench, engine)}


@torch.inference_mode()
def ways(bench: Bench, engine: Engine, batch: int) -> Figures:
    """Graphs of the last step in all ways: milliseconds, kernels, and whether their numbers are equal.

    Besides logits the keys and values that the step left in the last pages of its requests are compared.
    """
    graphs, attention = parts(engine)
    record, chosen = Recorder(), attention.launch_apart
    compute = partial(graphs.compute, torch.zeros(batch, dtype=torch.long, device=bench.device))
    pages = [page for request in engine.scheduler.running for page in request.pages[-2:]]

    def outcome(replay: Replay) -> tuple[Tensor, Tensor]:
        return replay().clone(), attention.store[:, :, pages].float()

    found: Figures = {}
    recorded = {name: recorded_as(way, attention, record, compute) for name, way in WAYS.items()}
    KEPT.extend([record, *recorded.values()])
    logits, kept = outcome(recorded["in_one"])
    found["logits_spread"] = float(logits.std())
    for name, replay in recorded.items():
        times = 1 if name == "in_three" else REPLAYS
        changes = [outcome(replay) for _ in range(times)]
        found[name] = {
            "ms": best_ms(replay),
            "logits_change": max(float((one - logits).abs().max()) for one, _ in changes),
            "keys_and_values_change": max(float((one - kept).abs().max()) for _, one in changes),
            "first_layer_change": max(float((one[0] - kept[0]).abs().max()) for _, one in changes),
            "kernels_us": of_one_step(replay),
        }
        bench.tell(f"batch {batch}, {name}: {found[name]}")
    for name, changes in LAUNCHES.items():
        values = {key: getattr(chosen, key) // 2 if value == -2 else value for key, value in changes.items()}
        attention.launch_apart = replace(chosen, **values)
        try:
            replay = recorded_as(WAYS["in_one_overlapping"], attention, record, compute)
            KEPT.append(replay)
            found[f"launch: {name}"] = best_ms(replay)
        except Exception as error:  # a launch that takes too much of this GPU costs itself only
            found[f"launch: {name}"] = f"{type(error).__name__}: {error}"
        bench.tell(f"batch {batch}, {name}: {found[f'launch: {name}']}")
    attention.launch_apart = chosen
    return found


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
    """Milliseconds of a graph: the best of four times twenty."""
    return min(1000 * timed_s(replay, 20) for _ in range(4))


def of_one_step(replay: Replay) -> dict[str, Any]:
    """Microseconds of the kernels of a graph, by name: all of a name together, and how many."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        replay()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.device_time_total)
    found = {
        event.key[:60]: {"count": event.count, "us": round(event.device_time_total, 1)}
        for event in events
        if event.device_time_total
    }
    return {"all": {"count": sum(one["count"] for one in found.values())}, **found}


def let_overlap(*, allowed: bool) -> Callable[[], None]:
    """Whether kernels may begin before the one before them has ended; what comes back sets it as it was."""
    from llava_next_video.engine.kernels import overlap  # needs Triton, which a CPU may lack

    def let(allowed: bool) -> None:
        overlap.ALLOWED = allowed
        overlap.overlapped.cache_clear()

    before = overlap.ALLOWED
    let(allowed)
    return lambda: let(before)


SECTIONS: Mapping[str, Callable[[Bench], Figures]] = {"kernels": kernels}
