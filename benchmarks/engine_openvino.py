"""Is the engine in 8 bits as fast as OpenVINO GenAI in 8 bits, on the same checkpoint?

One request from decoded frames (8 at 336 pixels, 64 new tokens), in turns with a peer process, with as many
threads for each. The peer lives in an environment of its own (see openvino_peer.py), named by a variable:

    LNV_OPENVINO_PYTHON=/path/to/python OMP_NUM_THREADS=2 python benchmarks/engine_openvino.py FOLDER

The first run writes the checkpoint (1 GB) and its export into FOLDER, which takes minutes more.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from engine import FRAMES, NEW_TOKENS, SIDE, TOKENS_PER_FRAME, best, by_engine, words
from llava_next_video.engine import Engine, EngineSettings
from llava_next_video.inputs import Medium, ModelInputs
from record import record

TURNS = 3
PEER = Path(__file__).with_name("openvino_peer.py")


def question(clip: int, length: int, video: int) -> ModelInputs:
    """A prompt as long as the peer's, about a clip of noise that is still bytes."""
    frames = torch.randint(256, (FRAMES, 3, SIDE, SIDE), dtype=torch.uint8)
    medium = Medium(
        kind="video",
        start=8,
        tokens=FRAMES * TOKENS_PER_FRAME,
        key=hashlib.sha256(str(clip).encode()).digest(),
        size=None,
        pixels=lambda: frames.float().sub_(116).div_(69),
    )
    after = words(clip, length - 8 - medium.tokens)
    return ModelInputs(
        ids=(*[9] * 8, *[video] * medium.tokens, *[one % 200 for one in after]), media=(medium,)
    )


def main(folder: Path) -> None:
    """Both in turns; the best turn of each by processor time."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    torch.set_num_threads(threads)
    python = os.environ["LNV_OPENVINO_PYTHON"]
    if not (folder / "openvino").is_dir():
        subprocess.run([python, PEER, "export", folder], check=True)
    command = [python, str(PEER), "measure", str(folder), str(threads)]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert peer.stdin is not None
    assert peer.stdout is not None
    busy = max(os.getloadavg()[0] - threads, 0)
    figures: dict[str, Any] = {"threads": threads, "other_load": busy, **json.loads(peer.stdout.readline())}

    def ask(new: int) -> dict[str, float]:
        print(new, file=peer.stdin, flush=True)
        return json.loads(peer.stdout.readline())

    length = int(ask(4)["prompt_tokens"])
    engine = Engine.from_folder(folder, EngineSettings(dtype="float32", quantize="int8", kv_bytes=2**30))
    video = engine.encoder.vision.config.video_token_index
    by_engine(engine, [question(99, length, video)], 4)
    turns: dict[str, list[dict[str, float]]] = {"openvino_int8": [], "engine_int8": []}
    for turn in range(TURNS):
        turns["openvino_int8"].append(ask(NEW_TOKENS))
        turns["engine_int8"].append(by_engine(engine, [question(turn, length, video)]))
    peer.stdin.close()
    peer.wait()
    figures |= {name: best(found) for name, found in turns.items()} | {"all_turns": turns}
    for seconds in ("total_s", "total_cpu_s"):
        figures[f"openvino_over_engine_{seconds}"] = (
            figures["openvino_int8"][seconds] / figures["engine_int8"][seconds]
        )
    print(json.dumps({name: value for name, value in figures.items() if name != "all_turns"}, indent=1))
    print(record("engine_openvino", figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
