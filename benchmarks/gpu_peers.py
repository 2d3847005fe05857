"""transformers' own class on the same shapes, and the tiny checkpoint against the reference."""

import random
import time
from collections.abc import Mapping
from typing import Any

import torch

from gpu_shapes import END, FIRST_WORD, HEAD, TAIL, VIDEO, Bench, configuration
from llava_next_video.engine import Answer, Engine, SamplingOptions
from llava_next_video.inputs import ModelInputs, padded_batch

Figures = dict[str, object]
BATCH = 16


def transformers(bench: Bench) -> Figures:
    """Captions a second of `generate`: sixteen clips together, and one after the other.

    Attention is sdpa, the cache static, nothing is compiled; pixels are ready on the device.
    """
    model = peer(bench)
    cpu = bench.device.type == "cpu"
    batch, alone = (2, 1) if cpu else (BATCH, 1 if bench.smoke else 2)
    figures: Figures = {"frames": 8, "new_tokens": bench.new_tokens, "batch": batch}
    generated(bench, model, 1, 4)  # the first run loads libraries
    seconds = generated(bench, model, batch, bench.new_tokens)
    figures |= {"batch_s": seconds, "batched_videos_per_s": batch / seconds}
    bench.tell(f"batch of {batch}: {seconds:.1f} s")
    seconds = sum(generated(bench, model, 1, bench.new_tokens) for _ in range(alone)) / alone
    figures |= {"alone_runs": alone, "alone_s": seconds, "alone_videos_per_s": 1 / seconds}
    ours = bench.results.get("caption8", {}).get("videos_per_s")
    if isinstance(ours, float):
        figures["ratio_to_batched"] = ours * figures_of(figures, "batch_s") / batch
        figures["ratio_to_alone"] = ours * seconds
        figures |= {"target_ratio_to_batched": 5, "target_ratio_to_alone": 30}
    return figures


def figures_of(figures: Figures, name: str) -> float:
    """A figure that is a number."""
    value = figures[name]
    assert isinstance(value, float)
    return value


def peer(bench: Bench) -> Any:
    """transformers' class with random weights, made on the device."""
    from transformers import LlavaNextVideoForConditionalGeneration as Theirs

    config = Theirs.config_class(**configuration(bench.shape).to_dict())
    with bench.device:
        model = Theirs._from_config(config, dtype=bench.dtype, attn_implementation="sdpa")
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = 0
    return model.to(bench.device).eval()


@torch.inference_mode()
def generated(bench: Bench, model: Any, batch: int, new_tokens: int) -> float:
    """Seconds of one call of `generate` for clips of 8 frames."""
    tokens = configuration(bench.shape).video_layout(8).tokens
    side = bench.shape.image
    ids = torch.randint(FIRST_WORD, bench.shape.vocabulary, (batch, HEAD + tokens + TAIL))
    ids[:, HEAD : HEAD + tokens] = VIDEO
    ids = ids.to(bench.device)
    pixels = torch.randn(batch, 8, 3, side, side, dtype=bench.dtype, device=bench.device)
    bench.wait()
    started = time.perf_counter()
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=pixels,
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        cache_implementation="static",
        disable_compile=True,
    )
    bench.wait()
    assert out.shape[1] == ids.shape[1] + new_tokens
    return time.perf_counter() - started


def exact(bench: Bench) -> Figures:
    """The tiny checkpoint on fresh scenes of the toy world, against the reference in float32 on the CPU."""
    from llava_next_video.assistant import VideoAssistant
    from llava_next_video.assistant.reading import Reader
    from llava_next_video.size import Size
    from llava_next_video.world import Film, ask, random_scene
    from llava_next_video.world.write import frames_of

    fast = VideoAssistant.load(device=str(bench.device))
    slow = VideoAssistant.load(device="cpu", reference=True)
    reader = Reader(processor=fast.processor, limits=fast.limits, frames=8)
    prompts = []
    times = tuple(index / 15 for index in range(16))
    for seed in range(2 if bench.device.type == "cpu" else 8 if bench.smoke else 32):
        rng = random.Random(f"gpu {seed}")
        scene = random_scene(rng)
        frames = frames_of(scene, Film(size=Size(96, 128), times=times))
        prompts += [reader.asked(frames, question.text).inputs for question in ask(scene, rng)[:4]]
    engine: Any = fast.network
    assert isinstance(engine, Engine)
    answers = engine.generate(prompts, SamplingOptions(max_new_tokens=48))
    reference: Any = slow.network
    forbidden = [reference.model.config.image_token_index, reference.model.config.video_token_index]
    logprobs = engine.generate(prompts, SamplingOptions(max_new_tokens=4, logprobs=5))
    agreed = total = 0
    worst, squares, count = 0.0, 0.0, 0
    for prompt, answer, told in zip(prompts, answers, logprobs, strict=True):
        wanted = logits_after(reference.model, prompt, answer, forbidden)
        chosen = wanted.argmax(dim=-1).tolist()
        agreed += sum(a == b for a, b in zip(chosen, answer.ids, strict=False))
        total += len(answer.ids)
        exact_logprobs = torch.log_softmax(wanted, dim=-1)
        for place, logprob in enumerate(told.last.logprobs):
            if tuple(told.ids[: place + 1]) != tuple(answer.ids[: place + 1]):
                break
            error = abs(logprob.logprob - float(exact_logprobs[len(told.ids) - 1 + place, logprob.id]))
            worst, squares, count = max(worst, error), squares + error * error, count + 1
    return {
        "prompts": len(prompts),
        "tokens": total,
        "greedy_agreement": agreed / max(total, 1),
        "logprobs_compared": count,
        "largest_logprob_error": worst,
        "rms_logprob_error": (squares / max(count, 1)) ** 0.5,
        "target_greedy_agreement": 0.99,
    }


@torch.inference_mode()
def logits_after(model: Any, prompt: ModelInputs, answer: Answer, forbidden: list[int]) -> torch.Tensor:
    """Logits from which the reference would choose each token of an answer, after the tokens before it."""
    longer = ModelInputs(ids=prompt.ids + answer.ids, media=prompt.media)
    logits = model(**padded_batch([longer], pad_token_id=0)).logits[0, len(prompt.ids) - 1 :].float()
    logits[:, forbidden] = -torch.inf
    return logits


SECTIONS: Mapping[str, Any] = {"transformers": transformers, "exact": exact}
