"""Captioning many clips: our pipeline against a loop of the seed page's code, on the same weights.

    python benchmarks/caption.py                          # everything; films 200 clips on the first run
    python benchmarks/caption.py tiny --clips 20 --longest 8 --sample 4 --no-record     # a smoke run
    python benchmarks/caption.py resume memory            # only these

`tiny` is the package's checkpoint, `mid` a random one of 300 million weights, 8-bit on our side. The loop
reads with the page's `read_video_pyav`, prepares and generates one clip at a time with transformers' model
(and its processor, where torchvision can be borrowed; else ours, which is faster). We look at the same frames
(`ours`), and with the tiny model once more at the key frames next to them (`ours_near_keys`, as `caption
--near-keys` does). The loop runs on a systematic sample of the clips, from the lightest to the heaviest, as
all of them would take too long. Both sides get all cores; the time to load is left out on both; ours
includes starting the decoders. Where others use the machine too, processor seconds say more than seconds.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

FRAMES, TOKENS, RATE = 8, 48, 25
PROMPT = "Describe the video."
HEIGHTS, WEIGHTS = (240, 360, 480, 720, 1080), (30, 35, 20, 10, 5)
DRAWN = 12
CACHE = Path(tempfile.gettempdir()) / "llava-next-video-benchmarks"
PARTS = ("tiny", "mid", "resume", "memory")


def plan(clips: int, longest_s: float) -> list[tuple[str, int, float]]:
    """Name, height and seconds of each clip: most are short and small, as on the web."""
    dice = random.Random(0)
    planned = []
    for number in range(clips):
        seconds = 2 * (longest_s / 2) ** (dice.random() ** 1.6)
        height = dice.choices(HEIGHTS, WEIGHTS)[0]
        planned.append((f"{number:03d}-{height}p-{round(seconds)}s.mp4", height, seconds))
    return planned


def filmed(number: int, height: int, seconds: float) -> Iterator[np.ndarray]:
    """A scene of the toy world, drawn small and blown up, under the noise of a camera.

    Without the noise, frames between key frames would cost next to nothing to decode.
    """
    from PIL import Image

    from llava_next_video.size import Size
    from llava_next_video.world.write import Film, clip_scene, frames_of

    scene, _, _ = clip_scene(11, number)
    width = round(height * scene.aspect / 2) * 2
    small = Size(96, round(96 * scene.aspect / 2) * 2)
    times = tuple(moment / (DRAWN - 1) for moment in range(DRAWN))
    dice = np.random.default_rng(number)
    noise = dice.integers(0, 7, (height + 64, width + 64, 1), dtype=np.uint8)
    pictures = frames_of(scene, Film(size=small, times=times)).clip(0, 248)
    last, big = -1, np.empty(0)
    for frame in range(round(seconds * RATE)):
        shown = int(frame * DRAWN / (seconds * RATE + 1))
        if shown != last:
            picture = Image.fromarray(pictures[shown]).resize((width, height), Image.Resampling.BILINEAR)
            last, big = shown, np.minimum(np.asarray(picture), 248)
        top, left = (37 * frame) % 64, (29 * frame) % 64
        yield big + noise[top : top + height, left : left + width]


def made(clips: int, longest_s: float, processes: int | None = None) -> list[Path]:
    """The clips, from the cache if they are there: H.264 with a key frame every two seconds."""
    folder = CACHE / f"captioned-{clips}-{longest_s:g}"
    folder.mkdir(parents=True, exist_ok=True)
    planned = plan(clips, longest_s)
    paths = [folder / name for name, _, _ in planned]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(processes or os.cpu_count()) as pool:
        jobs = (pool.submit(film, paths[number], number, *planned[number][1:]) for number in missing)
        for done in as_completed(list(jobs)):
            print(f"filmed {done.result()}", file=sys.stderr)
    return paths


def film(path: Path, number: int, height: int, seconds: float) -> str:
    """Write one of the clips."""
    from llava_next_video.media import write_clip

    options = {"preset": "superfast", "sc_threshold": "0"}
    write_clip(path, filmed(number, height, seconds), RATE, gop=2 * RATE, options=options)
    return path.name


def sampled(paths: list[Path], count: int) -> list[Path]:
    """Clips from the lightest to the heaviest, each standing for as many."""
    by_weight = sorted(paths, key=lambda path: path.stat().st_size)
    step = len(by_weight) / min(count, len(by_weight))
    return [by_weight[int((place + 0.5) * step)] for place in range(min(count, len(by_weight)))]


def checkpoint(model: str) -> str:
    """The package's own folder, or a random checkpoint, made on the first run."""
    from llava_next_video.checkpoint_name import default_checkpoint

    if model == "tiny":
        return str(default_checkpoint())
    from llava_next_video.convert import PRESETS, write_random

    folder = CACHE / model
    if not folder.exists():
        write_random(folder, PRESETS[model])
    return str(folder)


def read_video_pyav(container, indices):
    """The seed page's reader, as it stands there."""
    frames = []
    container.seek(0)
    start_index = indices[0]
    end_index = indices[-1]
    for i, frame in enumerate(container.decode(video=0)):
        if i > end_index:
            break
        if i >= start_index and i in indices:
            frames.append(frame)
    return np.stack([x.to_ndarray(format="rgb24") for x in frames])


def seed(folder: str, paths: list[str]) -> dict[str, object]:
    """The page's code in a loop; runs in a process of its own."""
    from referees import borrow_torchvision

    borrowed = borrow_torchvision()
    import av
    import torch
    import transformers
    from transformers import LlavaNextVideoForConditionalGeneration

    from llava_next_video import LlavaNextVideoProcessor

    model = LlavaNextVideoForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    kind = transformers.LlavaNextVideoProcessor if borrowed else LlavaNextVideoProcessor
    processor = kind.from_pretrained(folder)
    turns = [{"role": "user", "content": [{"type": "text", "text": PROMPT}, {"type": "video"}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    decode_s, generate_s, tokens, busy = 0.0, 0.0, 0, time.process_time()
    for path in paths:
        started = time.perf_counter()
        with av.open(path) as container:
            total_frames = container.streams.video[0].frames
            indices = np.arange(0, total_frames, total_frames / FRAMES).astype(int)
            video = read_video_pyav(container, indices)
        decode_s += time.perf_counter() - started
        started = time.perf_counter()
        inputs = processor(text=prompt, videos=video, return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        processor.batch_decode(out, skip_special_tokens=True)
        generate_s += time.perf_counter() - started
        tokens += out.shape[1] - inputs["input_ids"].shape[1]
    return {
        "clips": len(paths),
        "processor": "transformers" if borrowed else "ours",
        "seconds_a_clip": round((decode_s + generate_s) / len(paths), 3),
        "processor_s_a_clip": round((time.process_time() - busy) / len(paths), 3),
        "decode_s_a_clip": round(decode_s / len(paths), 3),
        "prepare_and_generate_s_a_clip": round(generate_s / len(paths), 3),
        "tokens_a_clip": round(tokens / len(paths), 1),
    }


def ours(
    folder: str, paths: list[str], quantize: str | None, workers: int, near_keys: bool
) -> dict[str, object]:
    """The pipeline over all clips; runs in a process of its own."""
    from llava_next_video.caption import Figures, Settings, caption, list_items
    from llava_next_video.caption.local import local_model
    from llava_next_video.media import Sampling

    sampling, options = Sampling(frames=FRAMES, near_keys=near_keys), {"max_new_tokens": TOKENS}
    model, _ = local_model(folder, {"quantize": quantize}, PROMPT, sampling, options)
    warm: list[Figures] = []
    loaded: list[float] = []

    def told(figures: Figures) -> None:
        if not loaded:
            loaded.append(_processor_s(resource.RUSAGE_SELF))
        if not warm and figures.done >= len(paths) // 10:
            warm.append(figures)

    with tempfile.TemporaryDirectory() as output:
        settings = Settings(workers=workers, dedupe="off")
        figures = caption(list_items(paths, PROMPT), Path(output), model, settings, report=False, told=told)
    assert figures.captioned == len(paths)
    after = figures.seconds - warm[0].seconds
    own = _processor_s(resource.RUSAGE_SELF) - loaded[0]
    decoders = _processor_s(resource.RUSAGE_CHILDREN)
    return {
        "clips": len(paths),
        "seconds": round(figures.seconds, 2),
        "seconds_a_clip": round(figures.seconds / len(paths), 3),
        "videos_per_second": round(figures.per_second, 3),
        "tokens_per_second": round(figures.tokens / figures.seconds, 1),
        "tokens_a_clip": round(figures.tokens / len(paths), 1),
        "model_idle_percent_once_warm": round(100 * (figures.idle_s - warm[0].idle_s) / after, 1),
        "decode_waits_percent": round(100 * figures.full_s / figures.seconds, 1),
        "processor_s_a_clip": round((own + decoders) / len(paths), 3),
        "of_it_decoders": round(decoders / len(paths), 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _processor_s(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def speed(model: str, clips: list[Path], sample: int, workers: int) -> dict[str, object]:
    """Both sides on one model."""
    folder, quantize = checkpoint(model), "int8" if model == "mid" else None
    given = (folder, list(map(str, clips)), quantize, workers)
    figures = {"ours": in_own_process("ours", *given, False)}
    if model == "tiny":  # beside `mid`, decoding is nothing
        figures["ours_near_keys"] = in_own_process("ours", *given, True)
    figures["seed"] = in_own_process("seed", folder, list(map(str, sampled(clips, sample))))

    def times(unit: str, who: str) -> float:
        return round(figures["seed"][unit] / figures[who][unit], 2)

    for who in [name for name in figures if name != "seed"]:
        figures[who]["times_faster"] = times("seconds_a_clip", who)
        figures[who]["times_by_processor_seconds"] = times("processor_s_a_clip", who)
    return figures


def in_own_process(what: str, *given: object) -> dict:
    command = [sys.executable, __file__, "--measure", what, json.dumps(given)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def resume(videos: int = 100_000, done: int = 99_000) -> dict[str, object]:
    """How long until a run that is nearly over hands out its next video, from a cold process."""
    from llava_next_video.caption.ledger import Ledger
    from llava_next_video.caption.row import Row

    words = [
        "a",
        "red",
        "ball",
        "rolls",
        "to",
        "the",
        "left",
        "while",
        "a",
        "blue",
        "box",
        "turns",
        "round",
        "and",
        "round",
    ]
    dice = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        manifest, output = Path(folder, "list.jsonl"), Path(folder, "out")
        with manifest.open("w") as file:
            for number in range(videos):
                file.write(json.dumps({"id": f"video-{number:09d}", "path": f"{number:09d}.mp4"}) + "\n")
        ledger = Ledger(output, "earlier")
        for number in range(done):
            row = Row(
                id=f"video-{number:09d}",
                source=f"/data/{number:09d}.mp4",
                source_sha256=f"{number:064x}",
                prompt=PROMPT,
                caption=" ".join(dice.choices(words, k=60)),
                finish_reason="stop",
                model="tiny",
                fingerprint="0" * 16,
                attempts=1,
                finished_at="2026-01-01T00:00:00.000+00:00",
            )
            ledger.kept[row.id] = row
            if len(ledger.kept) == 1000:
                ledger.publish()
        ledger.close()
        bytes_of_parts = sum(part.stat().st_size for part in output.glob("*.parquet"))
        return {
            "videos": videos,
            "done": done,
            "parts": len(list(output.glob("*.parquet"))),
            "parts_mb": round(bytes_of_parts / 2**20, 1),
            **in_own_process("resume", str(manifest), str(output)),
        }


def resumed(manifest: str, output: str) -> dict[str, object]:
    """Runs in a process of its own."""
    from llava_next_video.caption import Settings, list_items
    from llava_next_video.caption.desk import Desk

    def read_bytes() -> int:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(fields["rchar"])

    before, started, cpu = read_bytes(), time.perf_counter(), time.process_time()
    items = list_items([manifest], PROMPT)
    listed = time.perf_counter()
    desk = Desk(items, Path(output), Settings(), model="tiny", fingerprint="0" * 16)
    desk.begin()
    first = desk.next()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    figures = {
        "seconds_until_the_first_video": round(seconds, 2),
        "processor_s": round(cpu, 2),
        "of_it_listing_s": round(listed - started, 2),
        "read_mb": round((read_bytes() - before) / 2**20, 1),
        "first": first.item.id,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    desk.leave()
    return figures


def memory(clips: int = 5000) -> dict[str, object]:
    """Resident memory while so many small clips are captioned with the tiny checkpoint."""
    from llava_next_video.media import write_clip

    with tempfile.TemporaryDirectory() as folder:
        dice = np.random.default_rng(0)
        kinds = [
            write_clip(Path(folder, f"kind-{kind}.mp4"), dice.integers(0, 255, (8, 48, 64, 3), np.uint8), 8)
            for kind in range(10)
        ]
        videos = Path(folder, "videos")
        videos.mkdir()
        for number in range(clips):
            shutil.copy(kinds[number % 10], videos / f"{number:05d}.mp4")
            with (videos / f"{number:05d}.mp4").open("ab") as file:  # a box that players skip; other bytes
                file.write(b"\0\0\0\x10free" + number.to_bytes(8))
        return in_own_process("memory", checkpoint("tiny"), str(videos), str(Path(folder, "out")))


def remembered(checkpoint_folder: str, videos: str, output: str) -> dict[str, object]:
    """Runs in a process of its own."""
    from llava_next_video.caption import Figures, Settings, caption, list_items
    from llava_next_video.caption.local import local_model
    from llava_next_video.media import Sampling

    weights = {"kv_bytes": 64 << 20}  # pages of earlier prompts fill what there is, then memory stays
    model, _ = local_model(checkpoint_folder, weights, PROMPT, Sampling(frames=4), {"max_new_tokens": 8})
    resident: list[tuple[int, int]] = []

    def told(figures: Figures) -> None:
        if figures.done // 250 > len(resident):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append((figures.done, pages * os.sysconf("SC_PAGE_SIZE") // 2**20))

    settings = Settings(part_rows=500)
    figures = caption(list_items([videos], PROMPT), Path(output), model, settings, report=False, told=told)
    return {
        "clips": figures.done,
        "videos_per_second": round(figures.per_second, 1),
        "resident_mb_after": {str(done): megabytes for done, megabytes in resident},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)} (all)")
    parser.add_argument("--clips", type=int, default=200, help="clips to film (200)")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of the longest (60)")
    parser.add_argument("--mid-clips", type=int, default=40, help="of them, clips for the mid model (40)")
    parser.add_argument("--sample", type=int, default=20, help="clips of the loop; half for mid (20)")
    parser.add_argument("--workers", type=int, default=2, help="decoders (2)")
    parser.add_argument("--memory-clips", type=int, default=5000, help="clips of the memory part (5000)")
    parser.add_argument("--no-record", action="store_true", help="print only, write no result file")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "GIVEN"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, given = arguments.measure
        measures = {"seed": seed, "ours": ours, "resume": resumed, "memory": remembered}
        print(json.dumps(measures[what](*json.loads(given))))
        return
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown {', '.join(unknown)}; known: {', '.join(PARTS)}")
    clips = made(arguments.clips, arguments.longest) if {"tiny", "mid"} & set(arguments.parts) else []
    for part in arguments.parts:
        figures: dict[str, object] = {}
        if part == "tiny":
            figures = speed("tiny", clips, arguments.sample, arguments.workers)
        elif part == "mid":
            some = sampled(clips, arguments.mid_clips)
            figures = speed("mid", some, max(1, arguments.sample // 2), arguments.workers)
        elif part == "resume":
            figures = resume()
        else:
            figures = memory(arguments.memory_clips)
        print(json.dumps({part: figures}, indent=2))
        if not arguments.no_record:
            from record import record

            print(record(f"caption_{part}", figures), file=sys.stderr)


if __name__ == "__main__":
    main()
