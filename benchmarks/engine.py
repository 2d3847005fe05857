"""How much faster than transformers does the engine answer questions about videos?

One checkpoint with random weights (`mid`: CLIP of 12 layers x 768 at 336/14, Llama of 30 layers x 576), from
pixels, on the processor. Every figure of the engine stands beside transformers' own class on the same weights
and prompts, measured in turns in the same process.

    OMP_NUM_THREADS=2 python benchmarks/engine.py                # everything; an hour on two slow cores
    OMP_NUM_THREADS=2 python benchmarks/engine.py one stall      # only these

Give as many threads as cores are idle: on a busy machine one thread, as two wait for each other. With one
thread, the seconds of processor time (`_cpu_s`) leave out the time that others had the core. Results are
written after each part, so that a run which is cut short still counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig
from transformers import LlavaNextVideoConfig as HubConfig
from transformers import LlavaNextVideoForConditionalGeneration as HubModel
from transformers.generation.streamers import BaseStreamer

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.engine.linear import chosen_dtype
from llava_next_video.inputs import Medium, ModelInputs
from record import record

FRAMES, TOKENS_PER_FRAME, SIDE = 8, 144, 336
VIDEO, VOCABULARY, END = 49149, 49152, 2
NEW_TOKENS = 64


def mid() -> Any:
    """transformers' class with random weights."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=SIDE,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=16384,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
    )
    config = HubConfig(
        vision_config=vision, text_config=text, image_token_index=VIDEO + 1, video_token_index=VIDEO
    )
    model = HubModel(config).eval()
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = 0
    return model


def words(seed: int, count: int) -> list[int]:
    """Random word ids."""
    return torch.randint(3, 2000, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def question(clip: int, about: int, frames: int = FRAMES) -> ModelInputs:
    """Question number `about`, of 24 tokens, about a clip of noise."""
    generator = torch.Generator().manual_seed(clip)
    medium = Medium(
        kind="video",
        start=8,
        tokens=frames * TOKENS_PER_FRAME,
        key=hashlib.sha256(f"{clip} {frames}".encode()).digest(),
        size=None,
        pixels=torch.randn(frames, 3, SIDE, SIDE, generator=generator),
    )
    return ModelInputs(
        ids=(*words(0, 8), *[VIDEO] * medium.tokens, *words(1000 + about, 24)), media=(medium,)
    )


class Clock(BaseStreamer):
    """When each token of transformers came."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.cpu: list[float] = []

    def put(self, value: Tensor) -> None:
        self.moments.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def end(self) -> None:
        pass


def by_transformers(model: Any, prompts: Sequence[ModelInputs], new: int = NEW_TOKENS) -> dict[str, float]:
    """Seconds to the first token, between tokens, and in total, for one batch."""
    pixels = torch.stack([prompt.media[0].load() for prompt in prompts]).to(model.dtype)
    ids = torch.tensor([prompt.ids for prompt in prompts])
    clock = Clock() if len(prompts) == 1 else None
    start, start_cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values_videos=pixels,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            streamer=clock,
        )
    total = {"total_s": time.perf_counter() - start, "total_cpu_s": time.process_time() - start_cpu}
    if clock is None:
        return total
    gaps = [after - before for before, after in zip(clock.moments[1:], clock.moments[2:], strict=False)]
    return {
        "first_token_s": clock.moments[1] - start,
        "first_token_cpu_s": clock.cpu[1] - start_cpu,
        "token_ms": 1000 * median(gaps) if gaps else 0.0,
        **total,
    }


def by_engine(engine: Engine, prompts: Sequence[ModelInputs], new: int = NEW_TOKENS) -> dict[str, float]:
    """The same for requests that arrive together."""
    options = SamplingOptions(max_new_tokens=new, ignore_eos=True)
    start, start_cpu = time.perf_counter(), time.process_time()
    numbers = [engine.add(prompt, options) for prompt in prompts]
    first: dict[int, tuple[float, float]] = {}
    steps: list[float] = []
    while engine.busy:
        begin = time.perf_counter()
        outputs = engine.step()
        end = time.perf_counter()
        for output in outputs:
            first.setdefault(output.request_id, (end - start, time.process_time() - start_cpu))
        if len(first) == len(numbers):
            steps.append(end - begin)
    return {
        "first_token_s": first[numbers[0]][0],
        "first_token_cpu_s": first[numbers[0]][1],
        "last_first_token_s": max(wall for wall, _ in first.values()),
        "token_ms": 1000 * median(steps[1:] or steps),
        "total_s": time.perf_counter() - start,
        "total_cpu_s": time.process_time() - start_cpu,
    }


def fresh(model: Any, quantize: Any = "none", dtype: Any = "float32", **settings: Any) -> Engine:
    """An engine with empty caches."""
    return Engine.from_model(
        model, EngineSettings(dtype=dtype, quantize=quantize, kv_bytes=3 * 2**30, **settings)
    )


def warm(engine: Engine) -> Engine:
    """The same engine after a short request about another clip."""
    by_engine(engine, [question(999, 0, frames=1)], 4)
    return engine


def one(model: Any) -> dict[str, Any]:
    """One request, from pixels: both parties in both precisions, and the engine in 8 bits.

    All take turns, so that a busy machine is busy for all of them; the best of their turns counts. What the
    engine does without quantisation is the better of its precisions, as it is for transformers; `auto_dtype`
    is the one that the engine chooses where it is not told.
    """
    half = mid().to(torch.bfloat16)
    engines = {
        "engine_float32": warm(fresh(model)),
        "engine_bfloat16": warm(fresh(model, dtype="bfloat16")),
        "engine_int8": warm(fresh(model, "int8")),
    }
    peers = {"transformers_float32": model, "transformers_bfloat16": half}
    for peer in peers.values():
        by_transformers(peer, [question(999, 0, frames=1)], 4)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in (*engines, *peers)}
    for turn in range(2):
        for name, engine in engines.items():
            turns[name].append(by_engine(engine, [question(turn, 0)]))
        for name, peer in peers.items():
            turns[name].append(by_transformers(peer, [question(turn, 0)]))
    figures: dict[str, Any] = {name: best(found) for name, found in turns.items()}
    figures["auto_dtype"] = str(chosen_dtype("auto", torch.device("cpu"), "none")).removeprefix("torch.")
    for seconds in ("total_s", "total_cpu_s"):
        peer_seconds = min(figures[name][seconds] for name in peers)
        plain = min(figures[name][seconds] for name in ("engine_float32", "engine_bfloat16"))
        figures[f"times_faster_{seconds}"] = peer_seconds / plain
        figures[f"times_faster_int8_{seconds}"] = peer_seconds / figures["engine_int8"][seconds]
    figures["all_turns"] = turns
    return figures


def best(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The turn with the least total."""
    return min(found, key=lambda one: one["total_cpu_s"])


def questions(model: Any) -> dict[str, Any]:
    """Eight questions about one clip, against one at a time in transformers and eight clips here."""
    about_one = [question(1, about) for about in range(8)]
    peer = best([by_transformers(model, [prompt]) for prompt in about_one[:2]])
    figures: dict[str, Any] = {"transformers_one_question": peer}  # each of the eight costs the same
    for quantize in ("none", "int8"):
        shared = by_engine(warm(fresh(model, quantize)), about_one)
        different = by_engine(warm(fresh(model, quantize)), [question(clip, clip) for clip in range(8)])
        engine = warm(fresh(model, quantize))
        first, second = by_engine(engine, [question(2, 0)], 4), by_engine(engine, [question(2, 1)], 4)
        found: dict[str, Any] = {
            "one_clip": shared,
            "eight_clips": different,
            "first": first,
            "second": second,
        }
        for seconds in ("total_s", "total_cpu_s"):
            found[f"times_faster_than_transformers_{seconds}"] = 8 * peer[seconds] / shared[seconds]
            found[f"times_faster_than_eight_clips_{seconds}"] = different[seconds] / shared[seconds]
        for seconds in ("first_token_s", "first_token_cpu_s"):
            found[f"second_over_first_{seconds}"] = second[seconds] / first[seconds]
        figures[f"engine_{quantize}"] = found
    return figures


def sixteen(model: Any, quantize: str = "int8", dtype: str = "float32") -> dict[str, Any]:
    """Sixteen requests about different clips at once, against transformers' batches in both precisions.

    Transformers runs batches of four, to bound its memory; each of four such batches costs the same, so one
    is measured. The engine takes all sixteen.
    """
    prompts = [question(clip, clip) for clip in range(16)]
    half = mid().to(torch.bfloat16)
    figures: dict[str, Any] = {}
    for name, peer in (("float32", model), ("bfloat16", half)):
        by_transformers(peer, [question(999, 0, frames=1)], 4)
        figures[f"transformers_{name}_batch_of_4"] = by_transformers(peer, prompts[:4])
    ours = f"engine_{dtype if quantize == 'none' else quantize}"
    figures[ours] = by_engine(warm(fresh(model, quantize, dtype)), prompts)
    for name, party in figures.items():
        party["tokens_per_s"] = (16 if name == ours else 4) * NEW_TOKENS / party["total_s"]
        print(name, party, flush=True)
    for seconds in ("total_s", "total_cpu_s"):
        for name in ("float32", "bfloat16"):
            peer_seconds = 4 * figures[f"transformers_{name}_batch_of_4"][seconds]
            figures[f"times_faster_than_{name}_{seconds}"] = peer_seconds / figures[ours][seconds]
    return figures


def memory(model: Any) -> dict[str, Any]:
    """Resident memory over 1,000 small requests, the first hundred about a clip of one frame each."""
    engine = Engine.from_model(
        model, EngineSettings(dtype="float32", quantize="int8", kv_bytes=2**28, feature_bytes=2**24)
    )
    figures: dict[str, Any] = {"megabytes_after": {}}
    for done in range(0, 1000, 100):
        prompts = (
            [question(done + index, 0, frames=1) for index in range(100)]
            if not done
            else [ModelInputs(ids=tuple(words(done + index, 60))) for index in range(100)]
        )
        engine.generate(prompts, SamplingOptions(max_new_tokens=2, ignore_eos=True))
        engine.check()
        figures["megabytes_after"][done + 100] = resident() / 2**20
    after = list(figures["megabytes_after"].values())
    figures["growth_of_second_half_megabytes"] = after[-1] - after[4]
    return figures


def resident() -> int:
    """Bytes of memory this process holds now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def stall(model: Any) -> dict[str, Any]:
    """Three streams generate while a clip of 64 frames comes in: the longest wait for a token."""
    engine = warm(fresh(model, "int8"))
    streams = {
        engine.add(
            ModelInputs(ids=tuple(words(seed, 40))), SamplingOptions(max_new_tokens=200, ignore_eos=True)
        )
        for seed in range(3)
    }
    for _ in range(5):
        engine.step()
    long = engine.add(question(5, 0, frames=64), SamplingOptions(max_new_tokens=1, ignore_eos=True))
    longest, missed, steps = 0.0, 0, 0
    while True:
        begin = time.perf_counter()
        outputs = engine.step()
        longest = max(longest, time.perf_counter() - begin)
        came = {output.request_id for output in outputs}
        steps += 1
        missed += not streams <= came
        if long in came:
            break
    return {"steps": steps, "steps_without_a_token_for_a_stream": missed, "longest_wait_s": longest}


PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "one": one,
    "questions": questions,
    "sixteen": sixteen,
    "sixteen_float32": lambda model: sixteen(model, "none"),
    "sixteen_bfloat16": lambda model: sixteen(model, "none", "bfloat16"),
    "stall": stall,
    "memory": memory,
}


def main(names: Sequence[str]) -> None:
    """Measure the named parts, or all."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    model = mid()
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "frames": FRAMES, "new_tokens": NEW_TOKENS}
    for name in names or PARTS:
        start_load = os.getloadavg()[0]
        figures[name] = PARTS[name](model)
        figures[name]["other_load"] = max(start_load - torch.get_num_threads(), 0)
        print(name, json.dumps(figures[name], indent=1), flush=True)
        print(record("_".join(["engine", *names]), figures), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
