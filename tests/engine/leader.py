"""A program that shares a network with one follower, and what is to happen to it.

Prints a line of JSON with the follower's process id, then what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.inputs import ModelInputs

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=4)
KEPT: list[Engine] = []
QUESTION = ModelInputs(ids=tuple(range(5, 40)), media=())


def tell(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def children() -> list[int]:
    """Process ids of the children of this process that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = status.read_text().split(" (", 1)
        except OSError:
            continue  # it ended meanwhile
        state, parent = rest.rsplit(") ", 1)[1].split()[:2]
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(number))
    return found


def main(folder: Path, fate: str) -> None:
    engine = Engine.from_folder(folder, replace(SETTINGS, tensor_parallel=2))
    (follower,) = children()
    tell(follower=follower)
    long = SamplingOptions(max_new_tokens=900, ignore_eos=True)
    number = engine.add(QUESTION, long)
    if fate == "follower dies":
        killed_s, raised_s, errors = [], [], []

        def kill() -> None:
            killed_s.append(time.monotonic())
            os.kill(follower, signal.SIGKILL)

        threading.Timer(0.3, kill).start()
        for _ in range(2):
            try:
                while True:
                    engine.step()
            except LlavaNextVideoError as error:
                raised_s.append(time.monotonic())
                errors.append(str(error))
        tell(errors=errors, left=children(), waits_s=[at_s - killed_s[0] for at_s in raised_s])
    if fate == "interrupted":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                engine.step()
        except KeyboardInterrupt:
            engine.abort(number)
            answer = engine.generate([QUESTION], SamplingOptions(max_new_tokens=12))[0]
            tell(ids=answer.ids, left=children())
            engine.close()
            tell(left=children())
    if fate == "forks":
        child = os.fork()
        if not child:
            sys.exit()  # with all that a program does at its end
        _, status = os.waitpid(child, 0)
        engine.abort(number)
        answer = engine.generate([QUESTION], SamplingOptions(max_new_tokens=12))[0]
        tell(child=status, left=children(), tokens=len(answer.ids))
    if fate == "ends":
        KEPT.append(engine)  # beyond the end of the program
    if fate == "forgets":
        del engine
        tell(left=children())
    while fate == "works":  # until it is killed
        engine.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
