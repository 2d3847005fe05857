"""How does the server hold under many clients, and how much faster is it than a loop over generate?

`python benchmarks/serve.py [--seconds 120] [--clients 64]`: a server of the tiny checkpoint in a process of
its own; clients that ask about toy clips without a pause; a probe that asks /health ten times a second. Then
the same questions one by one through the reference network's `generate`, on the same machine right after.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from record import record

QUESTIONS = (
    "What happens in the video?",
    "What shape is in the video?",
    "What colour is it?",
    "Which way does it move?",
    "How many shapes are there?",
    "Describe the video.",
)
TOKENS = 32


def main() -> None:
    """Measure, print and write down."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=120.0, help="of load")
    options.add_argument("--baseline-seconds", type=float, default=30.0, help="of the loop over generate")
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--clips", type=int, default=48, help="different clips")
    options.add_argument("--no-record", action="store_true", help="print only")
    wanted = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = films(Path(folder), wanted.clips)
        figures = under_load(clips, wanted.clients, wanted.seconds)
        figures["generate_requests_per_s"] = one_by_one(clips, wanted.baseline_seconds)
    figures["times_generate"] = figures["requests_per_s"] / figures["generate_requests_per_s"]
    figures |= {"clients": wanted.clients, "clips": wanted.clips, "seconds": wanted.seconds}
    rounded = {name: round(one, 4) if isinstance(one, float) else one for name, one in figures.items()}
    print(json.dumps(rounded, indent=2))
    if not wanted.no_record:
        print(record("serve", rounded))


def films(folder: Path, count: int) -> list[Path]:
    """Clips of one moving shape each."""
    from llava_next_video.world import film, random_film, random_scene

    paths = []
    for seed in range(count):
        rng = random.Random(seed)
        scene = random_scene(rng, things=1)
        paths.append(film(scene, folder / f"{seed}.mp4", random_film(rng, scene)))
    return paths


def under_load(clips: list[Path], clients: int, seconds: float) -> dict[str, object]:
    """Throughput, errors, waiting times, the probe's worst hundredth, and memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "llava_next_video.cli",
        "serve",
        "--port",
        str(port),
        "--cache-mib",
        "256",
    ]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(port)
        stop = multiprocessing.Event()
        probed: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
        probe = multiprocessing.Process(target=probe_health, args=(port, stop, probed))
        probe.start()
        bodies = [body(path, question) for path in clips for question in QUESTIONS]
        answers, memory = asyncio.run(crowd(server.pid, port, bodies, clients, seconds))
        stop.set()
        health = sorted(probed.get())
        probe.join()
    finally:
        server.terminate()
        stopped = server.wait(60)
    statuses = Counter(status for status, _ in answers)
    times = sorted(time_s for status, time_s in answers if status == 200)
    quarter = max(1, len(memory) // 4)
    return {
        "requests_per_s": statuses[200] / seconds,
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "errors_but_429": sum(count for status, count in statuses.items() if status not in (200, 429)),
        "answer_median_s": times[len(times) // 2],
        "answer_p99_s": times[int(len(times) * 0.99)],
        "health_probes": len(health),
        "health_median_ms": 1000 * health[len(health) // 2],
        "health_p99_ms": 1000 * health[int(len(health) * 0.99)],
        "health_worst_ms": 1000 * health[-1],
        "memory_second_quarter_mib": sum(memory[quarter : 2 * quarter]) / quarter,
        "memory_last_quarter_mib": sum(memory[-quarter:]) / quarter,
        "exit_code": stopped,
    }


def body(path: Path, question: str) -> bytes:
    """A request as it goes over the wire."""
    url = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
    asked = {"messages": [{"role": "user", "content": content}], "max_tokens": TOKENS}
    told = json.dumps(asked).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(told)}\r\n\r\n".encode() + told


async def crowd(
    server: int, port: int, bodies: list[bytes], clients: int, seconds: float
) -> tuple[list[tuple[int, float]], list[float]]:
    """Statuses and times of all answers, and the memory of the server second by second."""
    until = time.monotonic() + seconds
    answers: list[tuple[int, float]] = []

    async def client(number: int) -> None:
        rng = random.Random(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        while time.monotonic() < until:
            started = time.monotonic()
            writer.write(rng.choice(bodies))
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            await reader.readexactly(length)
            answers.append((int(head.split()[1]), time.monotonic() - started))
        writer.close()

    memory: list[float] = []

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(resident_mib(server))
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    return answers, memory


def resident_mib(process: int) -> float:
    """Memory of a process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    threads = Path(f"/proc/{process}/task").iterdir()
    family = {process, *map(int, children)}
    for thread in threads:
        family |= set(map(int, (thread / "children").read_text().split()))
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def probe_health(port: int, stop: object, told: object) -> None:
    """Ask /health ten times a second, in a process that does nothing else."""
    import http.client

    times = []
    line = http.client.HTTPConnection("127.0.0.1", port)
    while not stop.is_set():  # type: ignore[attr-defined]
        started = time.monotonic()
        line.request("GET", "/health")
        line.getresponse().read()
        times.append(time.monotonic() - started)
        time.sleep(0.1)
    told.put(times)  # type: ignore[attr-defined]


def wait_until_ready(port: int) -> None:
    """Until the server takes requests."""
    import http.client

    until = time.monotonic() + 120
    while True:
        try:
            line = http.client.HTTPConnection("127.0.0.1", port)
            line.request("GET", "/ready")
            if line.getresponse().status == 200:
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def one_by_one(clips: list[Path], seconds: float) -> float:
    """Questions a second when each clip is read, prepared and answered by `generate` after the other."""
    from llava_next_video import VideoAssistant

    assistant = VideoAssistant.load(reference=True)
    rng = random.Random(0)
    assistant.ask(clips[0], QUESTIONS[0], max_new_tokens=TOKENS)
    done, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        assistant.ask(rng.choice(clips), rng.choice(QUESTIONS), max_new_tokens=TOKENS)
        done += 1
    return done / (time.monotonic() - started)


if __name__ == "__main__":
    main()
