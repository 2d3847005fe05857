"""32 frames of 720p to model input: ours against transformers' video processor.

make bench                       # fetches the referee and runs this
python benchmarks/pixels.py      # with LNV_REFEREES naming a folder that holds torchvision

Same process, one thread, warm, taking turns; medians of processor time, which a busy machine disturbs least.
The result must have the same bits.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from record import record
from referees import borrow_torchvision

FRAMES, HEIGHT, WIDTH, SIDE = 32, 720, 1280, 336


def timed(work: Callable[[], object]) -> float:
    """Processor seconds that the work took."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25, help="turns that each side gets (25)")
    parser.add_argument("--record", action="store_true", help="write a result file")
    rounds = parser.parse_args()
    if not borrow_torchvision():
        sys.exit("torchvision is not at hand; run `make bench`, or name its folder in LNV_REFEREES")
    from transformers import LlavaNextVideoVideoProcessor  # after torchvision was made importable

    from llava_next_video.processing import LlavaNextVideoImageProcessor

    torch.set_num_threads(1)
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    settings = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    ours, theirs = LlavaNextVideoImageProcessor(**settings), LlavaNextVideoVideoProcessor(**settings)

    def run(processor: Callable[..., dict[str, torch.Tensor]]) -> torch.Tensor:
        return processor(frames, return_tensors="pt")["pixel_values_videos"]

    same = torch.equal(run(ours), run(theirs))
    times = [(timed(lambda: run(theirs)), timed(lambda: run(ours))) for _ in range(rounds.rounds)]
    theirs_s, ours_s = (statistics.median(side) for side in zip(*times, strict=True))
    figures = {
        "frames": FRAMES,
        "frame": f"{WIDTH}x{HEIGHT} to {SIDE}x{SIDE}",
        "threads": 1,
        "rounds": rounds.rounds,
        "transformers_ms": round(theirs_s * 1e3, 1),
        "ours_ms": round(ours_s * 1e3, 1),
        "times_faster": round(statistics.median(other / own for other, own in times), 2),
        "same_bits": same,
    }
    print(json.dumps(figures, indent=2))
    if rounds.record:
        print(record("pixels", figures), file=sys.stderr)
    if not same:
        sys.exit("the pixels differ")


if __name__ == "__main__":
    main()
