"""How near paged attention comes to the speed of the memory, and which launch comes nearest.

PYTHONPATH=src python3 benchmarks/paged.py            # on a GPU, about half a minute
PYTHONPATH=src python3 benchmarks/paged.py --tune     # other launches, too: minutes, as each is compiled
TRITON_INTERPRET=1 PYTHONPATH=src python3 benchmarks/paged.py --device cpu   # the script itself

Requests of one length generate a token each. Their keys and values in all layers together are larger than the
cache of the GPU. One graph holds all layers; each stores its keys and values, attends and merges. Bytes are
those of keys and values that must be read at least once. Lengths and heads are those of LLaVA-NeXT-Video-7B
(8 and 32 frames, 32 heads of keys) and of its 32K sibling (8 heads of keys for 32 of queries).
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import torch

from llava_next_video.engine.attention_cuda import CudaAttention
from llava_next_video.engine.kernels.launch import Launch
from llava_next_video.engine.memory import FP8, token_bytes
from llava_next_video.engine.request import Request, Timings
from llava_next_video.engine.sampling_options import SamplingOptions
from llava_next_video.engine.scheduler import Chunk
from record import record

HEADS, WIDTH, PAGE = 32, 128, 16
LARGER_THAN_CACHE = 400e6
# Requests, tokens each looks at, how many of them are common to all, heads of keys, 8-bit keys and values.
CASES = [
    (1, 1216, 0, 32, False),
    (1, 4672, 0, 32, False),
    (8, 1216, 0, 32, False),
    (64, 1216, 0, 32, False),
    (32, 4672, 0, 32, False),
    (64, 1216, 0, 8, False),
    (64, 1216, 0, 32, True),
    (20, 4672, 4608, 32, False),
    (20, 4672, 4608, 8, False),
]
SMALL = [(2, 40, 0, 2, False), (2, 300, 256, 2, False)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="torch device (cuda)")
    parser.add_argument("--tune", action="store_true", help="try other launches")
    parser.add_argument("--record", action="store_true", help="write a result file")
    given = parser.parse_args()
    device = torch.device(given.device)
    figures: dict[str, object] = {}
    memory = None
    if device.type == "cuda":
        memory = copied_per_s(device)
        figures["copy_gb_per_s"] = memory / 1e9
        print(f"a copy reads and writes {memory / 1e9:,.0f} GB/s")
    for case in SMALL if device.type == "cpu" else CASES:
        found = measured(case, device, memory, given.tune)
        requests, tokens, common, heads, narrow = case
        name = f"{requests} x {tokens} tokens, {common} in common, {heads} heads{', 8 bits' * narrow}"
        figures[name] = found
        print(f"{name}: {json.dumps(found)}", flush=True)
    if given.record:
        print(record("paged", figures))


def measured(
    case: tuple[int, int, int, int, bool], device: torch.device, memory: float | None, tune: bool
) -> dict[str, object]:
    requests, tokens, common, heads, narrow = case
    store_dtype = FP8 if narrow else torch.bfloat16 if device.type == "cuda" else torch.float32
    seen = common + requests * (tokens - common)
    layer_bytes = seen * token_bytes(layers=1, key_value_heads=heads, head_width=WIDTH, dtype=store_dtype)
    layers = 1 if device.type == "cpu" else min(max(2, round(LARGER_THAN_CACHE / layer_bytes)), 32)
    each = -(-tokens // PAGE)
    shared = common // PAGE
    attention = CudaAttention(
        windows=[None] * layers,
        heads=max(HEADS if device.type == "cuda" else 2, heads),
        key_value_heads=heads,
        head_width=WIDTH,
        pages=shared + requests * (each - shared),
        page_tokens=PAGE,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
        share=True,
        device=device,
        tokens=requests,
        requests=requests,
        context=each * PAGE,
        store_dtype=store_dtype if narrow else None,
    )
    attention.store.view(torch.uint8).fill_(0x38)
    own = itertools.count(shared)
    chunks = [
        Chunk(
            request=request([*range(shared), *(next(own) for _ in range(each - shared))], number),
            start=tokens - 1,
            count=1,
        )
        for number in range(requests)
    ]
    attention.begin(chunks, padded=requests)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    given = torch.randn(requests, attention.heads + 2 * heads, WIDTH, device=device).to(dtype)
    queries, keys_values = given[:, : attention.heads], given[:, attention.heads :]

    def all_layers() -> None:
        for layer in range(layers):
            attention.attend(layer, queries, keys_values)

    launches = candidates(attention.launch) if tune else [attention.launch]
    best: dict[str, object] = {}
    for launch in launches:
        attention.launch = launch
        seconds = timed(all_layers, device) / layers
        if not best or seconds * 1e6 < best["layer_us"]:
            best = {"layer_us": round(seconds * 1e6, 2), "gb_per_s": round(layer_bytes / seconds / 1e9, 1)}
            best |= {"launch": asdict(launch)} if tune else {}
    if memory is not None:
        best["share_of_copy"] = round(best["gb_per_s"] * 1e9 / memory, 3)
    return best


def candidates(launch: Launch) -> list[Launch]:
    unit = launch.programs // 16  # multiprocessors
    grid = itertools.product((4, 8, 16), ((32, 4), (64, 4), (64, 8), (128, 8)), (2, 3, 4))
    return [launch] + [
        replace(launch, programs=many * unit, tokens=tokens, warps=warps, stages=stages)
        for many, (tokens, warps), stages in grid
    ]


def request(pages: Sequence[int], number: int) -> Request:
    return Request(
        id=number,
        index=0,
        options=SamplingOptions(),
        media=(),
        ids=[],
        prompt_tokens=0,
        end_ids=frozenset(),
        deadline_s=None,
        salt=b"",
        timings=Timings(arrived_s=0.0),
        pages=list(pages),
    )


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call, replayed from a graph on a GPU."""
    work()
    if device.type == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(16)]
    for _ in range(3):
        graph.replay()
    for event in events:
        event.record()
        graph.replay()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(events)) / 1e3


def copied_per_s(device: torch.device) -> float:
    """Bytes that a large copy reads and writes in a second."""
    source = torch.zeros(2**30, dtype=torch.uint8, device=device)
    to = torch.empty_like(source)

    def copy() -> None:
        to.copy_(source)

    return 2 * len(source) / timed(copy, device)


if __name__ == "__main__":
    main()
