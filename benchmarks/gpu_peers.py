"""transformers' own class on the same shapes, and the tiny checkpoint against the reference."""

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gpu_shapes import END, FIRST_WORD, HEAD, TAIL, VIDEO, Bench, configuration
from llava_next_video.engine import Answer, Engine, SamplingOptions, TokenLogprob
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
    """The tiny checkpoint on fresh scenes of the toy world, against the reference in float32.

    For each precision: how often the engine takes the token that the reference would take after the same
    tokens, and how far its log-probabilities are off. `reference_bfloat16` is the same for the reference
    itself in that precision: what rounding alone does.
    """
    from llava_next_video.assistant import VideoAssistant

    device = str(bench.device)
    exact_one = VideoAssistant.load(device=device, reference=True, dtype="float32")
    prompts = toy_prompts(exact_one, 2 if bench.device.type == "cpu" else 8 if bench.smoke else 24)
    judge: Any = exact_one.network
    figures: Figures = {"prompts": len(prompts), "target_greedy_agreement": 0.99}
    precisions = ["bfloat16", "float32"] if bench.device.type == "cpu" else ["bfloat16", "float16", "float32"]
    for dtype in precisions:
        engine: Any = VideoAssistant.load(device=device, dtype=dtype, kv_bytes=1 << 30).network
        assert isinstance(engine, Engine)
        answers = engine.generate(prompts, SamplingOptions(max_new_tokens=48))
        reported = reported_logprobs(engine, prompts)
        figures[dtype] = compared(judge.model, prompts, answers, reported)
        bench.tell(f"{dtype}: {figures[dtype]}")
        del engine
        bench.free()
    rounded: Any = VideoAssistant.load(device=device, reference=True, dtype="bfloat16").network
    agreed = total = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        both = [logits_after(one, prompt, answer).argmax(dim=-1) for one in (judge.model, rounded.model)]
        agreed += int((both[0] == both[1]).sum())
        total += len(both[0])
    figures["reference_bfloat16"] = {"greedy_agreement": agreed / total}
    return figures


def toy_prompts(assistant: Any, scenes: int) -> list[ModelInputs]:
    """Questions with long answers about clips of the toy world."""
    from llava_next_video.assistant.reading import Reader
    from llava_next_video.size import Size
    from llava_next_video.world import Film, ask, random_scene
    from llava_next_video.world.write import frames_of

    reader = Reader(processor=assistant.processor, limits=assistant.limits, frames=8)
    times = tuple(index / 15 for index in range(16))
    prompts = []
    for seed in range(scenes):
        rng = random.Random(f"gpu {seed}")
        scene = random_scene(rng)
        frames = frames_of(scene, Film(size=Size(96, 128), times=times))
        longest = sorted(ask(scene, rng), key=lambda question: -len(question.answer))[:4]
        prompts += [reader.asked(frames, question.text).inputs for question in longest]
    return prompts


def compared(
    judge: Any,
    prompts: Sequence[ModelInputs],
    answers: Sequence[Answer],
    reported: Sequence[Sequence[TokenLogprob]],
) -> Figures:
    """Agreement of answers with a reference, and the errors of their log-probabilities."""
    agreed = total = count = 0
    worst, squares = 0.0, 0.0
    for prompt, answer, told in zip(prompts, answers, reported, strict=True):
        wanted = logits_after(judge, prompt, answer)
        chosen = wanted.argmax(dim=-1).tolist()
        agreed += sum(a == b for a, b in zip(chosen, answer.ids, strict=False))
        total += len(answer.ids)
        exact_logprobs = torch.log_softmax(wanted, dim=-1).cpu()
        for place, (mine, id) in enumerate(zip(told, answer.ids, strict=False)):
            if mine.id != id:
                break
            error = abs(mine.logprob - float(exact_logprobs[place, id]))
            worst, squares, count = max(worst, error), squares + error * error, count + 1
    return {
        "tokens": total,
        "greedy_agreement": agreed / max(total, 1),
        "logprobs_compared": count,
        "largest_logprob_error": worst,
        "rms_logprob_error": (squares / max(count, 1)) ** 0.5,
    }


def reported_logprobs(engine: Engine, prompts: list[ModelInputs]) -> list[list[TokenLogprob]]:
    """What the engine says of the probability of its own tokens, for each prompt."""
    options = SamplingOptions(max_new_tokens=48, logprobs=1)
    numbers = {engine.add(prompt, options): place for place, prompt in enumerate(prompts)}
    told: list[list[TokenLogprob]] = [[] for _ in prompts]
    while engine.busy:
        for output in engine.step():
            told[numbers[output.request_id]] += output.logprobs
    return told


@torch.inference_mode()
def logits_after(model: Any, prompt: ModelInputs, answer: Answer) -> torch.Tensor:
    """Logits from which a reference would choose each token of an answer, after the tokens before it."""
    longer = ModelInputs(ids=prompt.ids + answer.ids, media=prompt.media)
    batch: dict[str, Any] = {}
    for name, value in padded_batch([longer], pad_token_id=0).items():
        batch[name] = (
            [one.to(model.device) for one in value] if isinstance(value, list) else value.to(model.device)
        )
    logits = model(**batch).logits[0, len(prompt.ids) - 1 :].float()
    logits[:, [model.config.image_token_index, model.config.video_token_index]] = -torch.inf
    return logits


SECTIONS: Mapping[str, Any] = {"transformers": transformers, "exact": exact}
