"""The blog's table at toy scale, with one command; every part is a process of its own.

    python run.py --device cuda --start ../tiny/out/first          # five minutes on a GPU
    python run.py --device cpu --start ../tiny/out/first --deadline 20000 --batch 8 --seeds 1

Parts: `pictures-tiles` and `pictures-base` (a), `clips-alone` and `clips-joint` (b, when the first is over),
`preferences` (c), `lengths` (d). Each leaves its figures in OUT/NAME.json as it finds
them; together they are OUT/results.json, from which `report.py` makes tables and plots.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from files import write_whole

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tiny"))

BEGIN = {
    "pictures-tiles": 0.0,
    "pictures-base": 0.0,
    "preferences": 0.1,
    "lengths": 0.0,
    "clips-alone": 0.25,
    "clips-joint": 0.25,
}
"""All parts, and when they begin after the first, as shares of the time; those for clips wait for states."""
PICTURES, WAITING, CLIPS, CARELESS, PREFERENCES, LENGTHS, READ = 0.54, 0.7, 0.92, 0.34, 0.88, 0.64, 0.97
"""When these are over, as shares of the time."""
GRACE = 5.0
"""Seconds that a part has to end in when its time is up."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--start", type=Path, required=True, help="folder of states of runs/tiny/train.py")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--deadline", type=float, default=265.0, help="seconds until all is over")
    parser.add_argument("--seeds", type=int, default=3, help="networks side by side")
    parser.add_argument("--batch", type=int, default=24, help="clips a step and network")
    parser.add_argument("--workers", type=int, default=2, help="processes that invent scenes, for each part")
    parser.add_argument("--examine", type=int, default=150, help="scenes of each kind in an examination")
    parser.add_argument("--steps", type=int, help="steps of each stage, in place of its time")
    parser.add_argument("--video-steps", type=int, default=1000, help="of each way in (b), at most")
    parser.add_argument("--rounds", type=int, default=10, help="of preferences")
    parser.add_argument("--learnt", type=Path, help="folder that (d) left: read it again, without learning")
    parser.add_argument("--parts", choices=BEGIN, nargs="+", default=list(BEGIN))
    parser.add_argument("--part", choices=BEGIN, help=argparse.SUPPRESS)
    parser.add_argument("--begun", type=float, default=time.time(), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        run_part(given)
    else:
        run_all(given)


def run_part(given: argparse.Namespace) -> None:
    """One part, in this process."""
    import torch
    from stack import Setting

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut off"))  # so that what the part started ends, too
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    torch.set_flush_denormal(True)
    setting = Setting(
        **{name: getattr(given, name) for name in Setting.__dataclass_fields__}  # the options bear its names
    )
    match given.part:
        case "pictures-tiles" | "pictures-base":
            from pictures import learn_pictures

            learn_pictures(setting, tiled=given.part == "pictures-tiles", until=setting.until(PICTURES))
        case "preferences":
            from prefer import learn_preferences

            learn_preferences(
                setting, careless_until=setting.until(CARELESS), until=setting.until(PREFERENCES)
            )
        case "lengths":
            from longer import learn_lengths

            learn_lengths(setting, until=setting.until(LENGTHS), read_until=setting.until(READ))
        case _:
            from clips import learn_clips

            ways = ("separate", "mixed") if given.part == "clips-joint" else ("alone",)
            learn_clips(setting, ways, wait_until=setting.until(WAITING), until=setting.until(CLIPS))


def run_all(given: argparse.Namespace) -> None:
    """All parts side by side, until they are over or the time is; then their figures in one file."""
    given.out.mkdir(parents=True, exist_ok=True)
    if set(given.parts) & {"pictures-tiles"}:
        for state in (given.out / "pictures-tiles").glob("seed*.pt"):
            state.unlink()
    running: dict[str, subprocess.Popen[bytes]] = {}
    waiting, status = list(given.parts), dict[str, int | str]()
    first = min(BEGIN[name] for name in waiting)
    while running or waiting:
        spent = time.time() - given.begun
        for name in [name for name in waiting if spent >= (BEGIN[name] - first) * given.deadline]:
            running[name] = _started(name, given)
            waiting.remove(name)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            status[name] = running.pop(name).returncode
            print(f"{spent:5.0f}s {name} ended with {status[name]}", flush=True)
            write_results(given, status)
        if status.get("pictures-tiles", 0) != 0:
            waiting = [name for name in waiting if not name.startswith("clips")]
            status |= _cut_off({n: running.pop(n) for n in list(running) if n.startswith("clips")})
        if spent > given.deadline:
            status |= dict.fromkeys(waiting, "never begun")
            status |= _cut_off(running)
            break
        time.sleep(0.2)
    write_results(given, status)
    for name in [name for name, ended in status.items() if ended not in (0, "never begun")]:
        print(f"--- {name}: {status[name]}\n{(given.out / f'{name}.log').read_text()[-1500:]}", flush=True)


def _cut_off(running: dict[str, subprocess.Popen[bytes]]) -> dict[str, int | str]:
    """End the parts: gently, then not."""
    for process in running.values():
        process.terminate()
    end = time.time() + GRACE
    for process in running.values():
        try:
            process.wait(max(end - time.time(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
    return dict.fromkeys(running, "cut off")


def write_results(given: argparse.Namespace, status: dict[str, int | str]) -> None:
    """What is there of all parts, in one file, whole or not at all."""
    found: dict[str, object] = {
        "settings": {
            name: getattr(given, name)
            for name in ("device", "deadline", "seeds", "batch", "examine", "video_steps", "rounds", "steps")
        },
        "seconds": round(time.time() - given.begun, 1),
        "ended": status,
    }
    for name in BEGIN:
        if (path := given.out / f"{name}.json").exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    write_whole(given.out / "results.json", found)


def _started(name: str, given: argparse.Namespace) -> subprocess.Popen[bytes]:
    options = [
        f"--{option.replace('_', '-')}={value}"
        for option, value in vars(given).items()
        if option not in ("part", "parts") and value is not None
    ]
    (given.out / f"{name}.json").unlink(missing_ok=True)
    with (given.out / f"{name}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-u", __file__, "--part", name, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


if __name__ == "__main__":
    main()
