"""Everything that is promised for one GPU, in one command of under four minutes.

PYTHONPATH=src python3 benchmarks/gpu.py                        # all sections, on an H100 or H200
PYTHONPATH=src python3 benchmarks/gpu.py step caption8 --smoke  # does it run?
PYTHONPATH=src python3 benchmarks/gpu.py kernels launches       # in which way is a step fastest?
PYTHONPATH=src python3 benchmarks/gpu.py --smoke --device cpu   # the script itself, on a tiny shape

A network of the shape of LLaVA-NeXT-Video-7B (CLIP ViT-L/14-336 and Vicuna-7B) gets random weights, drawn on
the GPU in bfloat16: time does not depend on what they are. Frames are bytes of noise, as decoding is not
measured. After every section the figures so far are written; a section that fails costs itself only.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import gpu_engine
import gpu_kernels
import gpu_peers
import gpu_train
from gpu_shapes import SHAPES, Bench
from no_codec import allow_no_codec
from record import describe_machine, record

ALL = {**gpu_engine.SECTIONS, **gpu_kernels.SECTIONS, **gpu_peers.SECTIONS, **gpu_train.SECTIONS}
ORDER = ("step", "caption8", "caption32", "shared", "transformers", "exact", "train", "vision")
APART = ("kernels", "launches")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help=f"which of {', '.join(ALL)} (all but {', '.join(APART)})")
    parser.add_argument("--device", default="cuda", help="torch device (cuda)")
    parser.add_argument("--shape", choices=SHAPES, help="of the network (7b; tiny on a CPU)")
    parser.add_argument("--smoke", action="store_true", help="few repeats")
    parser.add_argument("--out", type=Path, help="JSON file, written after every section")
    parser.add_argument("--seconds", type=float, default=235.0, help="begin no section after so many (235)")
    parser.add_argument("--no-overlap", action="store_true", help="let no kernel begin before the last ends")
    parser.add_argument("--record", action="store_true", help="write a result file, too")
    given = parser.parse_args()
    unknown = set(given.sections) - set(ALL)
    if unknown:
        parser.error(f"unknown section {min(unknown)!r}; known: {', '.join(ALL)}")
    allow_no_codec()
    if given.no_overlap:
        gpu_kernels.let_overlap(allowed=False)
    begun = time.perf_counter()

    def tell(text: str) -> None:
        print(f"[{time.perf_counter() - begun:6.1f} s] {text}", flush=True)

    device = torch.device(given.device)
    results: dict[str, dict[str, object]] = {}
    bench = Bench(
        device=device,
        shape=SHAPES[given.shape or ("7b" if device.type == "cuda" else "tiny")],
        smoke=given.smoke,
        tell=tell,
        results=results,
    )
    tell(f"torch {torch.__version__} on {describe_machine()['accelerator'] or 'cpu'}")
    for name in [name for name in (*ORDER, *APART) if name in (given.sections or ORDER)]:
        if time.perf_counter() - begun > given.seconds:
            results[name] = {"error": f"not begun: {given.seconds} s had passed"}
        else:
            results[name] = guarded(name, ALL[name], bench)
        bench.free()
        if given.out is not None:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            content = {"machine": describe_machine(), "smoke": given.smoke, "figures": results}
            given.out.write_text(json.dumps(content, indent=2, default=str) + "\n")
    print(json.dumps(results, indent=2, default=str))
    if given.record:
        print(record("gpu", results))
    failed = [name for name, figures in results.items() if "error" in figures]
    tell(f"done; failed: {', '.join(failed) or 'none'}")
    sys.exit(1 if failed else 0)


def guarded(name: str, section: Callable[[Bench], dict[str, object]], bench: Bench) -> dict[str, object]:
    """The figures of a section, or how it failed."""
    bench.tell(f"section {name}")
    started = time.perf_counter()
    try:
        figures = section(bench)
    except Exception as error:
        traceback.print_exc()
        figures = {"error": f"{type(error).__name__}: {error}"}
    figures["section_s"] = time.perf_counter() - started
    bench.tell(f"{name}: {json.dumps(figures, default=str)}")
    return figures


if __name__ == "__main__":
    main()
