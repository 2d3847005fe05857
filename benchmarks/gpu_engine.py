"""The engine on a GPU: steps, captions, shared clips, the tower."""

import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from gpu_shapes import HEAD, TAIL, Bench, asked, configuration, timed_s, words
from llava_next_video.engine import Engine, SamplingOptions, linear_wide
from llava_next_video.engine.memory import page_bytes
from llava_next_video.engine.roofline import Machine, Work
from llava_next_video.inputs import ModelInputs

Figures = dict[str, object]

CONTEXT = {1: 64, 8: 1216, 32: 1216, 64: 1216}
"""Tokens of the prompts behind which steps are timed, for each batch."""


def step(bench: Bench) -> Figures:
    """Time of a step that only generates, with one token for each of 1, 8, 32 and 64 requests."""
    engine, machine = bench.engine(), bench.machine()
    bench.tell(f"{machine.bytes_per_s / 1e12:.2f} TB/s, {2e-12 * machine.multiplications_per_s:.0f} TFLOP/s")
    work = Work.of(engine.decoder, engine.words, engine.encoder.vision)
    figures: Figures = {
        "bytes_per_s": machine.bytes_per_s,
        "flops_per_s": 2 * machine.multiplications_per_s,
        "weight_bytes": work.weight_bytes,
        "limit_ms_batch_1": 1000 * work.weight_bytes / machine.bytes_per_s,
        "target_ms_batch_1_at_4.3_TB_per_s": 3.6,
    }
    if bench.device.type == "cuda":
        figures |= products(bench, engine, work)
    for batch, context in CONTEXT.items():
        if bench.device.type == "cpu":
            context = 24
        figures[f"batch_{batch}"] = found = one_batch(bench, engine, work, machine, batch, context)
        bench.tell(f"batch {batch}: {found}")
    if bench.device.type == "cuda":
        figures["products_ms"] = {
            f"{tuple(shape)} {role}, {'one row' if alone else 'a few rows'}": {
                str(cut or "torch"): round(ms, 4) for cut, ms in choice.times_ms.items()
            }
            for (shape, _, _, role, alone), choice in linear_wide.CHOICES.items()
        }
        bench.tell(f"products: {json.dumps(figures['products_ms'])}")
    return figures


@torch.inference_mode()
def products(bench: Bench, engine: Engine, work: Work) -> Figures:
    """The products of one step with their norms, gates and sums, in a graph: all of it but the attention."""
    decoder = engine.decoder
    hidden = torch.randn(1, decoder.width, dtype=decoder.dtype, device=decoder.device)
    attended = torch.randn(1, decoder.heads * decoder.head_width, dtype=decoder.dtype, device=decoder.device)
    epsilon, activation = decoder.epsilon, decoder.activation

    def all_products() -> None:
        for one in decoder.layers:
            one.query_key_value.after_norm(hidden, one.norm_before_attention, epsilon)
            one.attention_out.onto(attended, hidden)
            assert isinstance(one.gate_up, linear_wide.WideLinear)
            inner = one.gate_up.gated_after_norm(hidden, one.norm_before_mlp, epsilon, activation)
            one.down.onto(inner, hidden)
        engine.words.logits(hidden)

    all_products()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        all_products()
    seconds = timed_s(graph.replay, 20)
    bench.tell(f"products alone: {1000 * seconds:.2f} ms, {work.weight_bytes / seconds / 1e12:.2f} TB/s")
    return {"products_alone_ms": 1000 * seconds, "products_alone_bytes_per_s": work.weight_bytes / seconds}


def one_batch(
    bench: Bench,
    engine: Engine,
    work: Work,
    machine: Machine,
    batch: int,
    context: int,
    also: Callable[[Bench, Engine, int], Figures] | None = None,
) -> Figures:
    """Steps of one size: as the engine takes them, and the recorded graph alone.

    `also` measures more while the plan of the last step is in place.
    """
    dice = torch.Generator().manual_seed(batch)
    rounds = 12 if bench.smoke else 48
    options = SamplingOptions(max_new_tokens=rounds + 64, ignore_eos=True)
    numbers = [engine.add(ModelInputs(ids=tuple(words(bench, context, dice))), options) for _ in range(batch)]
    while sum(request.decoding for request in engine.scheduler.running) < batch:
        engine.step()
    for _ in range(6):
        engine.step()
    bench.wait()
    started = time.perf_counter()
    for _ in range(rounds):
        engine.step()
    bench.wait()
    seconds = (time.perf_counter() - started) / rounds
    of_token = page_bytes(engine.decoder, engine.settings) // engine.settings.page_tokens
    read = work.weight_bytes + batch * (context + 8 + rounds // 2) * of_token
    found: Figures = {
        "context": context,
        "step_ms": 1000 * seconds,
        "least_ms": 1000 * read / machine.bytes_per_s,
        "share_of_bandwidth": read / seconds / machine.bytes_per_s,
        "tokens_per_s": batch / seconds,
    }
    graphs = engine.runner.graphs
    if graphs is not None and bench.device.type == "cuda":
        # The last plan is still in place: replaying writes the same keys and values again.
        with torch.inference_mode():
            replay = list(graphs.recorded.values())[-1]
            found["graph_alone_ms"] = 1000 * timed_s(replay, 20)
        if also is not None:
            found |= also(bench, engine, batch)
    for number in numbers:
        engine.abort(number)
    while engine.busy:
        engine.step()
    return found


def captions(bench: Bench, frames: int, target: float) -> Figures:
    """Captions of new clips a second, with as many under way as fit.

    The first answers get lengths from 1 to 128, so that requests end and begin all the time from then on.
    Then a stretch of time is measured: prompts that began to be answered, and tokens written, in it.
    """
    engine = bench.engine()
    whole = configuration(bench.shape).video_layout(frames).tokens + HEAD + TAIL + bench.new_tokens
    room = engine.pages.count * engine.pages.page_tokens
    together = max(1, min(int(0.97 * room / (whole + 16)), engine.settings.max_requests))
    if bench.smoke:
        together = min(together, 32)
    prompts = asked(bench, frames=frames)
    first = itertools.cycle(range(1, bench.new_tokens + 1, max(1, bench.new_tokens // together)))
    lengths = [next(first) for _ in range(together)]
    under_way: set[int] = set()
    begun = written = answered = 0

    def add(new_tokens: int) -> None:
        options = SamplingOptions(max_new_tokens=new_tokens, ignore_eos=True)
        under_way.add(engine.add(next(prompts), options))

    def round_() -> None:
        nonlocal begun, written, answered
        for output in engine.step():
            written += len(output.ids)
            begun += output.completion_tokens == 1
            if output.finish is not None:
                assert output.finish == "length", output.error
                answered += 1
                under_way.discard(output.request_id)
        while len(under_way) < together:
            add(bench.new_tokens)

    for length in lengths:
        add(length)
    started = time.perf_counter()
    most_s = 20.0 if bench.smoke else 25.0
    while answered < together and time.perf_counter() - started < most_s:
        round_()
    bench.tell(f"{together} together; the first are answered in {time.perf_counter() - started:.1f} s")
    begun = written = answered = 0
    busy = engine.scheduler.counters.computed_tokens, engine.encoder.frames
    started = time.perf_counter()
    window_s = 4.0 if bench.smoke or bench.device.type == "cpu" else 10.0
    while time.perf_counter() - started < window_s:
        round_()
    seconds = time.perf_counter() - started
    by_tokens, by_prompts = written / bench.new_tokens / seconds, begun / seconds
    figures: Figures = {
        "frames": frames,
        "new_tokens": bench.new_tokens,
        "together": together,
        "window_s": seconds,
        "videos_per_s": min(by_tokens, by_prompts),
        "videos_per_s_by_tokens_written": by_tokens,
        "videos_per_s_by_prompts_begun": by_prompts,
        "answers_per_s": answered / seconds,
        "prompt_and_answer_tokens_per_s": (engine.scheduler.counters.computed_tokens - busy[0]) / seconds,
        "frames_per_s": (engine.encoder.frames - busy[1]) / seconds,
        "preemptions": engine.scheduler.counters.preemptions,
        "target_videos_per_s_on_h200": target,
    }
    bench.tell(f"{frames} frames: {figures['videos_per_s']:.2f} videos/s")
    return figures


def caption8(bench: Bench) -> Figures:
    """Captions of 128 tokens for clips of 8 frames."""
    return captions(bench, 8, 12.9)


def caption32(bench: Bench) -> Figures:
    """The same for 32 frames."""
    return captions(bench, 32, 3.3)


def shared(bench: Bench) -> Figures:
    """20 questions about one clip of 32 frames, computed once, and computed 20 times."""
    engine = bench.engine()
    questions, new_tokens, frames = 20, 32, 32
    if bench.device.type == "cpu":
        frames, new_tokens = 8, 4
    rounds = 1 if bench.smoke else 2
    options = SamplingOptions(max_new_tokens=new_tokens, ignore_eos=True)
    figures: Figures = {"questions": questions, "frames": frames, "new_tokens": new_tokens, "target": 8}
    medians: dict[str, float] = {}
    for name, same in (("shared", questions), ("apart", None)):
        prompts = asked(bench, frames=frames, same=same)
        times = []
        for _ in range(rounds + 1):
            some = list(itertools.islice(prompts, questions))
            bench.wait()
            started = time.perf_counter()
            engine.generate(some, options)
            bench.wait()
            times.append(time.perf_counter() - started)
        medians[name] = statistics.median(times[1:])
        figures[f"{name}_s"] = medians[name]
        figures[f"{name}_first_s"] = times[0]
        bench.tell(f"{name}: {times}")
    figures["ratio"] = medians["apart"] / medians["shared"]
    return figures


@torch.inference_mode()
def vision(bench: Bench) -> Figures:
    """Tower, pooling and projector alone."""
    engine, machine = bench.engine(), bench.machine()
    seeing, side = engine.encoder.vision, bench.shape.image
    work = Work.of(engine.decoder, engine.words, seeing)
    frames = 64 if bench.device.type == "cuda" else 2
    pixels = torch.randn(frames, 3, side, side, dtype=bench.dtype, device=bench.device)

    def see() -> None:
        seeing.frames(seeing.tower(pixels))

    see()
    rounds = 3 if bench.smoke else 10
    bench.wait()
    started = time.perf_counter()
    for _ in range(rounds):
        see()
    bench.wait()
    seconds = (time.perf_counter() - started) / rounds
    multiplied = frames * work.by_frame / seconds
    return {
        "frames_at_once": min(frames, seeing.tiles_at_once),
        "frames_per_s": frames / seconds,
        "videos_of_8_frames_per_s": frames / seconds / 8,
        "flops_per_s": 2 * multiplied,
        "share_of_peak": multiplied / machine.multiplications_per_s,
    }


SECTIONS: Mapping[str, Callable[[Bench], Figures]] = {
    "step": step,
    "caption8": caption8,
    "caption32": caption32,
    "shared": shared,
    "vision": vision,
}
