"""32 frames out of ten minutes: our reader against the seed page's.

python benchmarks/decode.py            # makes the clip on the first run (minutes), then compares
python benchmarks/decode.py --minutes 1

Each reading has its own process, and both run as a user runs them: the page's code with PyAV's own
threading, ours with the second thread that it takes for long plans. Processor seconds add up all threads.
Memory is the growth of the process's peak over what it had after its imports. Our time includes hashing the
file, which the page's reader does not do.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FRAMES, RATE, HEIGHT, WIDTH = 32, 30, 720, 1280
# Quick to encode, and with what clips from phones and the web have: B-frames, CABAC, loop filter.
PRESETS = {"b-frames": {"preset": "superfast"}, "no-b-frames": {"preset": "ultrafast"}}


def filmed(count: int) -> Iterator[np.ndarray]:
    """A noisy camera drifting over a coloured landscape, two things moving in front of it at their own pace.

    The noise keeps the frames between key frames from being nearly free: a key frame then costs a few
    times the mean frame, as in real clips (1.5 to 4.3 times in five that were looked at).
    """
    from PIL import Image

    random = np.random.default_rng(0)
    height, width = HEIGHT + 240, WIDTH + 480
    landscape = np.zeros((height, width, 3))
    for cell, weight in ((240, 0.6), (60, 0.3), (20, 0.1)):
        coarse = random.integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        landscape += weight * np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        )
    landscape = landscape.clip(0, 255).astype(np.uint8)
    disc = ((np.indices((140, 140)) - 70.0) ** 2).sum(0) < 70**2
    noise = random.normal(0, 2.2, (height, width, 1)).round().astype(np.int16)
    for number in range(count):
        top = int(120 + 119 * np.cos(number / 211))
        left = int(240 + 239 * np.sin(number / 337))
        frame = landscape[top : top + HEIGHT, left : left + WIDTH].copy()
        y, x = (3 * number) % (HEIGHT - 140), (7 * number) % (WIDTH - 140)
        frame[y : y + 140, x : x + 140][disc] = (number % 256, (number // 7) % 256, (number // 61) % 256)
        y, x = (HEIGHT - 90 - number) % (HEIGHT - 90), (WIDTH - 90 - 2 * number) % (WIDTH - 90)
        frame[y : y + 90, x : x + 90] = landscape[y : y + 90, x : x + 90][::-1]
        y, x = (37 * number) % (height - HEIGHT), (101 * number) % (width - WIDTH)
        yield (frame + noise[y : y + HEIGHT, x : x + WIDTH]).clip(0, 255).astype(np.uint8)


def made(minutes: float, preset: str) -> Path:
    """The clip, from the cache if it is there: H.264, a key frame every two seconds."""
    from llava_next_video.media import write_clip

    count = round(minutes * 60 * RATE)
    folder = Path(tempfile.gettempdir()) / "llava-next-video-benchmarks"
    folder.mkdir(exist_ok=True)
    path = folder / f"drift-{count}-{preset}.mp4"
    if not path.exists():
        print(f"encoding {count} frames of {WIDTH}x{HEIGHT} ({preset}) ...", file=sys.stderr)
        options = {**PRESETS[preset], "sc_threshold": "0"}
        write_clip(path, filmed(count), RATE, gop=2 * RATE, options=options)
    return path


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


def seed(path: str) -> np.ndarray:
    import av

    with av.open(path) as container:
        total_frames = container.streams.video[0].frames
        indices = np.arange(0, total_frames, total_frames / FRAMES).astype(int)
        return read_video_pyav(container, indices)


def ours(path: str) -> np.ndarray:
    from llava_next_video.media import Sampling, read_clip

    return read_clip(path, Sampling(frames=FRAMES)).frames


def measure(reader: str, path: str) -> dict[str, object]:
    """Runs in a process of its own."""
    import av  # noqa: F401

    import llava_next_video.media  # noqa: F401

    before = _memory("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    frames = {"ours": ours, "seed": seed}[reader](path)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    grown = _memory("VmHWM") - before
    return {
        "seconds": seconds,
        "processor_seconds": busy,
        "peak_growth_bytes": grown,
        "kept_bytes": frames.nbytes,
        "sha256": hashlib.sha256(frames).hexdigest(),
    }


def _memory(field: str) -> int:
    """From /proc, because `getrusage` lets a child inherit its parent's peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field}")


def in_own_process(reader: str, path: Path) -> dict[str, object]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--measure", reader, str(path)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def compare(path: Path, seconds_long: float, repeats: int) -> dict[str, object]:
    """Medians of both readers, taken in turns."""
    runs: dict[str, list[dict]] = {"ours": [], "seed": []}
    for _ in range(repeats):
        for reader in runs:
            runs[reader].append(in_own_process(reader, path))
    mine, theirs = runs["ours"][0], runs["seed"][0]
    figures: dict[str, object] = {
        "clip_bytes": path.stat().st_size,
        "clip_bits_per_second": round(path.stat().st_size * 8 / seconds_long),
        "pixel_equal": all(run["sha256"] == theirs["sha256"] for done in runs.values() for run in done),
        "kept_bytes": mine["kept_bytes"],
    }
    for field in ("seconds", "processor_seconds"):
        medians = {}
        for reader, done in runs.items():
            figures[f"{field}_{reader}"] = [round(run[field], 3) for run in done]
            medians[reader] = statistics.median(run[field] for run in done)
        figures[f"times_faster_by_{field}"] = round(medians["seed"] / medians["ours"], 1)
    for reader, done in runs.items():
        peak = max(run["peak_growth_bytes"] for run in done)
        figures[f"peak_over_kept_{reader}"] = round(peak / mine["kept_bytes"], 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the clip in minutes (10)")
    parser.add_argument("--repeats", type=int, default=3, help="readings of each kind (3)")
    parser.add_argument(
        "--presets", nargs="+", choices=PRESETS, default=list(PRESETS), help="which clips (all)"
    )
    parser.add_argument("--no-record", action="store_true", help="print only, write no result file")
    parser.add_argument("--measure", nargs=2, metavar=("READER", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    figures: dict[str, object] = {"minutes": arguments.minutes, "frames": FRAMES, "frames_per_second": RATE}
    for preset in arguments.presets:
        figures[preset] = compare(made(arguments.minutes, preset), arguments.minutes * 60, arguments.repeats)
    print(json.dumps(figures, indent=2))
    if not arguments.no_record:
        from record import record

        print(record("decode", figures), file=sys.stderr)


if __name__ == "__main__":
    main()
