"""What do fewer bits cost, in megabytes, seconds and right answers?

    OMP_NUM_THREADS=1 python benchmarks/quantisation.py                    # all of them
    python benchmarks/quantisation.py --only float32 bnb-4bit --mid none   # some, right answers only
    python benchmarks/quantisation.py --clips 0                            # speed and memory only
    python benchmarks/quantisation.py --device cuda --mid none             # on a GPU

Quality: the toy world's examination, asked of the small checkpoint of the package through the reference
network in batches, greedy, right to the letter; beside it the share of answers that
are those of float32. Speed and memory: a random checkpoint of the `mid` preset (made once in --mid), one
prompt with 4 frames of 336 pixels (576 visual tokens) and 32 new tokens. Each way of loading has a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import BitsAndBytesConfig, GenerationConfig, StoppingCriteriaList

from llava_next_video import LlavaNextVideoForConditionalGeneration, LlavaNextVideoProcessor, VideoAssistant
from llava_next_video.assistant import Reader
from llava_next_video.checkpoint_name import default_checkpoint
from llava_next_video.convert import PRESETS, write_random
from llava_next_video.inputs import padded_batch
from llava_next_video.media import Limits, Sampling, read_clip
from llava_next_video.messages import Video
from llava_next_video.model.quantised import bitsandbytes_config, quantised_table
from llava_next_video.world import ask, film
from llava_next_video.world.write import clip_scene
from record import record

LONGEST, FRAMES = 80, 8
MID_FRAMES, SIDE, NEW_TOKENS = 4, 336, 32
WAITING = 512  # requests handed to the engine at once
TOGETHER = 4  # clips whose questions are asked in one batch
Loader = Callable[[], dict[str, Any]]


def four(**settings: Any) -> BitsAndBytesConfig:
    """4 bits by bitsandbytes, computed in bfloat16."""
    usual = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    return BitsAndBytesConfig(load_in_4bit=True, **(usual | settings))


def torchao(kind: str) -> object:
    """A config of torchao."""
    from torchao import quantization
    from torchao.quantization.granularity import PerGroup
    from transformers import TorchAoConfig

    kinds: dict[str, Callable[[], object]] = {
        "int8": quantization.Int8WeightOnlyConfig,
        "int8-dynamic": quantization.Int8DynamicActivationInt8WeightConfig,
        "int4": lambda: quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
    }
    return TorchAoConfig(quant_type=kinds[kind]())


def layers_spared(folder: Path) -> list[str]:
    """Our list of modules, with the first and the last layer of the language model."""
    last = json.loads((folder / "config.json").read_text())["text_config"]["num_hidden_layers"] - 1
    ends = [f"model.language_model.layers.{layer}" for layer in (0, last)]
    return ["model.vision_tower", "model.multi_modal_projector", "lm_head", *ends]


def ways(folder: Path) -> dict[str, Loader]:
    """By name, the arguments of `from_pretrained` that load a checkpoint that way."""
    f32 = {"dtype": torch.float32}
    return {
        "float32": lambda: f32,
        "bfloat16": lambda: {"dtype": torch.bfloat16},
        "float16": lambda: {"dtype": torch.float16},
        "bnb-8bit": lambda: f32 | {"quantization_config": bitsandbytes_config(8)},
        "bnb-8bit everywhere": lambda: (
            f32
            | {
                "quantization_config": BitsAndBytesConfig(
                    load_in_8bit=True, llm_int8_skip_modules=["lm_head"]
                )
            }
        ),
        "bnb-4bit": lambda: f32 | {"quantization_config": bitsandbytes_config(4)},
        "bnb-4bit without double": lambda: f32 | {"quantization_config": four()},
        "bnb-4bit fp4": lambda: f32 | {"quantization_config": four(bnb_4bit_quant_type="fp4")},
        "bnb-4bit, ends spared": lambda: (
            f32 | {"quantization_config": four(llm_int8_skip_modules=layers_spared(folder))}
        ),
        "bnb-4bit everywhere": lambda: f32 | {"quantization_config": four(llm_int8_skip_modules=["lm_head"])},
        "torchao int8": lambda: f32 | {"quantization_config": torchao("int8")},
        "torchao int8-dynamic": lambda: f32 | {"quantization_config": torchao("int8-dynamic")},
        "torchao int4": lambda: f32 | {"quantization_config": torchao("int4")},
    }


ENGINES = {"engine float32": None, "engine int8": "int8"}


def examination(folder: Path, clips: int, seed: int) -> Iterator[dict[str, Any]]:
    """Questions about fresh clips, of which a tenth are empty and the rest show one to three things."""
    processor = LlavaNextVideoProcessor.from_pretrained(folder)
    reader = Reader(
        processor=processor, limits=Limits(), frames=Sampling(frames=FRAMES), max_visual_tokens=None
    )
    with tempfile.TemporaryDirectory() as place:
        for number in range(clips):
            things = 0 if number % 10 == 9 else 1 + number % 3
            scene, how, dice = clip_scene(seed, number, things)
            clip = read_clip(film(scene, Path(place) / "clip.mp4", how), Sampling(frames=FRAMES))
            for question in ask(scene, dice):
                (medium,) = (inputs := reader.asked(Video(source=clip), question.text).inputs).media
                batch = padded_batch([inputs], pad_token_id=0)
                yield {
                    "clip": number,
                    "ids": batch["input_ids"][0],
                    "pixels": medium.load(),
                    "answer": question.answer,
                }


def answers(model: Any, processor: Any, exam: list[dict[str, Any]]) -> list[str]:
    """What the model says to each question; those about a few clips are asked together."""
    config, tokenizer = model.config, processor.tokenizer
    never = {config.image_token_id, config.video_token_id}
    never.update(range(len(tokenizer), config.get_text_config().vocab_size))
    pad = tokenizer.pad_token_id or 0
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=LONGEST,
        suppress_tokens=sorted(never),
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=pad,
    )
    said: list[str] = []
    for _, group in groupby(exam, key=lambda one: one["clip"] // TOGETHER):
        together = list(group)
        longest = max(len(one["ids"]) for one in together)
        ids = torch.full((len(together), longest), pad)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(together):
            ids[row, longest - len(one["ids"]) :] = one["ids"]
            mask[row, longest - len(one["ids"]) :] = 1
        pixels = torch.stack([one["pixels"] for one in together]).to(model.device, model.dtype)
        made = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            pixel_values_videos=pixels,
            generation_config=settings,
        )
        said += [text.strip() for text in tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)]
    return said


def loaded(folder: Path, way: str, device: str) -> Any:
    """The checkpoint, loaded that way."""
    settings = ways(folder)[way]()
    return LlavaNextVideoForConditionalGeneration.from_pretrained(
        folder, device_map={"": device}, **settings
    ).eval()


def quality(way: str, folder: Path, exam: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Right answers, and every answer."""
    began = time.perf_counter()
    if way in ENGINES:
        assistant = VideoAssistant.load(folder, device="cpu", dtype="float32", quantize=ENGINES[way])
        held = None
        frames = [one["pixels"] for one in exam]
        said = by_engine(assistant, exam, frames)
    else:
        model = loaded(folder, way, device)
        held = {row.part: round(row.megabytes, 3) for row in quantised_table(model)}
        said = answers(model, LlavaNextVideoProcessor.from_pretrained(folder), exam)
    right = sum(text == one["answer"] for text, one in zip(said, exam, strict=True))
    return {
        "right": right,
        "asked": len(exam),
        "share": right / len(exam),
        "megabytes": held,
        "seconds": time.perf_counter() - began,
        "said": said,
    }


def by_engine(assistant: VideoAssistant, exam: list[dict[str, Any]], pixels: list[Any]) -> list[str]:
    """The engine's answers to the same prompts."""
    from llava_next_video.engine import SamplingOptions
    from llava_next_video.inputs import Medium, ModelInputs

    network, tokenizer = assistant.network, assistant.processor.tokenizer
    video = assistant.processor.video_token_id
    texts: dict[int, list[int]] = {}
    for start in range(0, len(exam), WAITING):
        for one, frames in zip(exam[start : start + WAITING], pixels[start : start + WAITING], strict=True):
            ids = one["ids"].tolist()
            medium = Medium(
                kind="video",
                start=ids.index(video),
                tokens=ids.count(video),
                key=one["clip"].to_bytes(32, "big"),
                size=None,
                pixels=frames,
            )
            options = SamplingOptions(max_new_tokens=LONGEST)
            texts[network.add(ModelInputs(ids=tuple(ids), media=(medium,)), options)] = []
        while network.busy:
            for output in network.step():
                texts[output.request_id] += output.ids
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in texts.values()]


def speed(way: str, folder: Path, device: str) -> dict[str, Any]:
    """Seconds to load, to the first token and for a token, and memory; the logits are for `compared`."""
    began = time.perf_counter()
    model = loaded(folder, way, device)
    load_s = time.perf_counter() - began
    noise = torch.Generator().manual_seed(0)
    clip = torch.randn(1, MID_FRAMES, 3, SIDE, SIDE, generator=noise).to(device, model.dtype)
    visual = MID_FRAMES * (SIDE // 14 // 2) ** 2
    video = model.config.video_token_id
    ids = torch.tensor([[5, 9, 7, *[video] * visual, *range(20, 40)]]).to(device)
    prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": clip}

    answer(model, prompt, 2)  # bitsandbytes rearranges its weights at the first answer.
    stamps, logits = answer(model, prompt, NEW_TOKENS)
    steps = [after - before for before, after in pairwise(stamps)]
    peak = torch.cuda.max_memory_allocated() if device != "cpu" else 0
    return {
        "load_s": load_s,
        "first_token_s": steps[0],
        "token_ms": 1000 * median(steps[1:]),
        "weights_mb": sum(row.megabytes for row in quantised_table(model)),
        "parts_mb": {row.part: round(row.megabytes, 2) for row in quantised_table(model)},
        "peak_mb": (peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e6,
        "logits": logits.tolist(),
    }


def answer(model: Any, prompt: dict[str, Any], tokens: int) -> tuple[list[float], torch.Tensor]:
    """When an answer of so many tokens began and each token was there, and the logits of the first.

    On a CPU seconds are the processor's, which other work on the machine disturbs less than the clock's.
    """
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    stamps: list[float] = []

    def stamp(ids: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
        if model.device.type != "cpu":
            torch.cuda.synchronize()
        stamps.append(clock())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    began = clock()
    made = model.generate(
        **prompt,
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        output_logits=True,
        return_dict_in_generate=True,
        stopping_criteria=StoppingCriteriaList([stamp]),
    )
    return [began, *stamps], made.logits[0][0].float().cpu()


def in_a_process(arguments: list[str]) -> dict[str, Any]:
    """What a child of ours measured, or why it could not."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return {"not_measured": last[:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def compared(rows: dict[str, dict[str, Any]], mid: dict[str, dict[str, Any]]) -> None:
    """Put beside each figure how far it is from float32; answers and logits themselves are left out."""
    plain = rows.get("float32", {})
    for row in rows.values():
        said = row.pop("said", None) if row is not plain else row.get("said")
        if said is not None and "said" in plain:
            row["same_as_float32"] = sum(map(str.__eq__, said, plain["said"])) / len(said)
            row["points_lost"] = 100 * (plain["share"] - row["share"])
    plain.pop("said", None)
    exact = torch.tensor(mid.get("float32", {}).get("logits", []))
    for row in mid.values():
        logits = torch.tensor(row.pop("logits", []))
        if len(exact) and len(logits):
            row["relative_error_of_logits"] = float((logits - exact).norm() / exact.norm())


def main() -> None:
    """Measure every way, or the ones that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=default_checkpoint())
    parser.add_argument(
        "--mid", default="/tmp/llava-next-video-mid", help="folder of the mid checkpoint, or none"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "WAY"), help="what a child process measures")
    parser.add_argument("--exam", type=Path)
    asked = parser.parse_args()
    if asked.one:
        kind, way = asked.one
        if kind == "speed":
            print(json.dumps(speed(way, Path(asked.mid), asked.device)))
        else:
            exam = torch.load(asked.exam, weights_only=True)
            print(json.dumps(quality(way, asked.checkpoint, exam, asked.device)))
        return
    names = asked.only or [*ways(asked.checkpoint), *(ENGINES if asked.device == "cpu" else {})]
    rows: dict[str, dict[str, Any]] = {}
    mid: dict[str, dict[str, Any]] = {}
    if asked.mid != "none" and not Path(asked.mid).is_dir():
        write_random(Path(asked.mid), PRESETS["mid"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exam.pt"
        if asked.clips:
            torch.save(list(examination(asked.checkpoint, asked.clips, asked.seed)), file)
        usual = ["--checkpoint", str(asked.checkpoint), "--device", asked.device, "--mid", asked.mid]
        for way in names:
            rows[way] = {}
            if asked.clips:
                rows[way] = in_a_process([*usual, "--exam", str(file), "--one", "quality", way])
            if asked.mid != "none" and way not in ENGINES:
                mid[way] = in_a_process([*usual, "--one", "speed", way])
            shown = {**rows[way], **mid.get(way, {})}
            print(
                way, {key: value for key, value in shown.items() if key not in ("said", "logits")}, flush=True
            )
    compared(rows, mid)
    figures = {
        "clips": asked.clips,
        "seed": asked.seed,
        "device": asked.device,
        "threads": torch.get_num_threads(),
        "tiny": rows if asked.clips else {},
        "mid": mid,
    }
    print(json.dumps(figures, indent=1))
    part = "speed" if not asked.clips else "answers" if asked.mid == "none" else ""
    print(record("_".join(word for word in ("quantisation", part) if word), figures))


if __name__ == "__main__":
    main()
