"""transformers' own class on the same shapes, and the tiny checkpoint against the reference."""

import random
import statistics
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
    """The tiny checkpoint on fresh scenes of the toy world, against the reference.

    Answers of the engine in bfloat16 are followed by the reference, which says after each beginning what it
    would choose itself. Agreement is the share of tokens that are the same, for the engine and the reference
    in float32; for both in bfloat16; and for the two references, which is what rounding alone does. A
    disagreement is a tie where the two tokens are so close in float32 that a logit rounded to bfloat16 cannot
    tell them apart. Last, the engine in float32 against the reference in float32.
    """
    from llava_next_video.assistant import VideoAssistant

    device = str(bench.device)

    def assistant(dtype: str, *, reference: bool) -> Any:
        more = {} if reference else {"kv_bytes": 1 << 30}
        return VideoAssistant.load(device=device, reference=reference, dtype=dtype, **more)

    wide, narrow = (assistant(dtype, reference=True) for dtype in ("float32", "bfloat16"))
    scenes = 16 if bench.smoke else 32
    prompts = toy_prompts(wide, scenes)
    figures: Figures = {"scenes": scenes, "prompts": len(prompts), "target_greedy_agreement": 0.99}
    for dtype in ("bfloat16", "float32"):
        engine: Any = assistant(dtype, reference=False).network
        assert isinstance(engine, Engine)
        if dtype == "float32":
            prompts = prompts[::4]
        answers = engine.generate(prompts, SamplingOptions(max_new_tokens=48))
        chosen = [torch.tensor(answer.ids) for answer in answers]
        exact_logits = logits_of(wide.network.model, prompts, answers)
        found: Figures = {
            "tokens": sum(map(len, chosen)),
            "engine_and_float32": agreement(chosen, exact_logits),
            "engine_logprobs": logprob_errors(reported_logprobs(engine, prompts), answers, exact_logits),
        }
        if dtype == "bfloat16":
            rounded = logits_of(narrow.network.model, prompts, answers)
            found["engine_and_reference"] = agreement(chosen, rounded)
            found["reference_and_float32"] = agreement([one.argmax(-1) for one in rounded], exact_logits)
            told = [
                [TokenLogprob(id=int(id), logprob=float(row[id])) for id, row in zip(ids, rows, strict=True)]
                for ids, rows in zip(chosen, (one.log_softmax(-1) for one in rounded), strict=True)
            ]
            found["reference_logprobs"] = logprob_errors(told, answers, exact_logits)
        figures[dtype] = found
        bench.tell(f"{dtype}: {found}")
        del engine
        bench.free()
    return figures


def agreement(chosen: Sequence[torch.Tensor], logits: Sequence[torch.Tensor]) -> Figures:
    """How often tokens are the likeliest of these logits, and how close the two are where they are not."""
    ids, rows = torch.cat(list(chosen)), torch.cat(list(logits))
    best = rows.argmax(dim=-1)
    other = ids != best
    top = rows.gather(1, best[:, None])[other, 0]
    behind = top - rows.gather(1, ids[:, None])[other, 0]
    ties = behind <= top.abs() * torch.finfo(torch.bfloat16).eps
    return {
        "agreement": 1 - int(other.sum()) / len(ids),
        "disagreements": int(other.sum()),
        "ties_in_bfloat16": int(ties.sum()),
        "agreement_beside_ties": 1 - int((~ties).sum()) / len(ids),
        "margins": sorted(round(float(one), 4) for one in behind)[-20:],
    }


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
        longest = sorted(ask(scene, rng), key=lambda question: -len(question.answer))[:2]
        prompts += [reader.asked(frames, question.text).inputs for question in longest]
    return prompts


def logprob_errors(
    told: Sequence[Sequence[TokenLogprob]], answers: Sequence[Answer], logits: Sequence[torch.Tensor]
) -> Figures:
    """How far reported log-probabilities are from those of the logits, where both are of the same tokens."""
    errors = []
    for said, answer, rows in zip(told, answers, logits, strict=True):
        exact_logprobs = torch.log_softmax(rows, dim=-1)
        for place, (mine, id) in enumerate(zip(said, answer.ids, strict=False)):
            if mine.id != id:
                break
            errors.append(abs(mine.logprob - float(exact_logprobs[place, id])))
    return {
        "compared": len(errors),
        "largest": max(errors, default=0.0),
        "rms": (sum(error * error for error in errors) / max(len(errors), 1)) ** 0.5,
        "median": statistics.median(errors or [0.0]),
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
def logits_of(model: Any, prompts: Sequence[ModelInputs], answers: Sequence[Answer]) -> list[torch.Tensor]:
    """Logits from which a reference would choose each token of each answer, after the tokens before it."""
    found = []
    for prompt, answer in zip(prompts, answers, strict=True):
        longer = ModelInputs(ids=prompt.ids + answer.ids, media=prompt.media)
        batch: dict[str, Any] = {}
        for name, value in padded_batch([longer], pad_token_id=0).items():
            batch[name] = (
                [one.to(model.device) for one in value] if isinstance(value, list) else value.to(model.device)
            )
        logits = model(**batch).logits[0, len(prompt.ids) - 1 : -1].float()
        logits[:, [model.config.image_token_index, model.config.video_token_index]] = -torch.inf
        found.append(logits.cpu())
    return found


SECTIONS: Mapping[str, Any] = {"transformers": transformers, "exact": exact}
