"""Decode a medium in a process that can be killed.

A damaged clip can hang or crash a decoder written in C. It then takes this child process with it, never the
training run: the clip becomes one `MediaError`, and a fresh child takes the next one. A child is also
replaced after some hundreds of media, so that what a decoder leaks comes back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe
from typing import Literal, cast

from llava_next_video.data.handover import Desk, give, take
from llava_next_video.data.record import Slice, source_name
from llava_next_video.errors import LlavaNextVideoError, MediaError
from llava_next_video.media import (
    Clip,
    FetchPolicy,
    Limits,
    Means,
    Picture,
    Sampling,
    Source,
    read_clip,
    read_image,
)
from llava_next_video.messages import Image, Video

Decoded = Clip | Picture

# Ctrl-C reaches every process of a terminal: when to end is decided by the one that started this child.
CHILD = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from llava_next_video.data.decoder import serve; serve(int(sys.argv[1]))"
)

_KEEPS_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What the child tells glibc: each clip needs as much memory as the last one, so it is not given back between
them, and it lies in large pages. Untold, 4 % of the time goes into asking for it again."""


class Decoder:
    """Reads media one at a time in a child process of its own; safe to carry through a fork.

    Attributes:
        timeout_s: Seconds one medium may take; the first one also pays for starting the child.
        recycle_after: Media after which the child is replaced.
        threads: See `Means`; 1 where several decoders share the cores.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 60.0,
        limits: Limits | None = None,
        policy: FetchPolicy | None = None,
        recycle_after: int = 500,
        threads: Literal[1, 2] = 2,
    ) -> None:
        self.timeout_s = timeout_s
        self.recycle_after = recycle_after
        self.threads = threads
        self._limits = limits or Limits()
        self._policy = policy or FetchPolicy()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None
        self._owner = 0
        self._read = 0

    def read(self, medium: Image | Video, sampling: Sampling) -> Decoded:
        """The frames of a clip, or a picture.

        Raises:
            MediaError: The medium does not open, crashed its decoder, or took too long.
        """
        name = source_name(medium.source)
        line = self._connected()
        try:
            line.send((medium, sampling, self._limits, self._policy, self.threads))
            if not line.poll(self.timeout_s):
                self.close()
                raise MediaError(f"{name}: not decoded within {self.timeout_s:g} s; the decoder was stopped")
            answer = cast(Decoded | LlavaNextVideoError, take(line))
        except (EOFError, OSError) as error:
            code = self._ended()
            self.close()
            if code is None:
                raise MediaError(f"{name}: its frames could not be taken over: {error}") from error
            raise MediaError(f"{name}: the decoder died on it (exit status {code})") from error
        self._read += 1
        if self._read >= self.recycle_after:
            self.close()
        if isinstance(answer, LlavaNextVideoError):
            raise answer
        return answer

    def _ended(self) -> int | None:
        """The exit status of a child that ends; None if it goes on."""
        if self._child is None:
            return None
        try:
            return self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return None

    @property
    def child(self) -> int | None:
        """Process id of the child; None between two."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """End the child, whatever it is doing; the next `read` starts a new one."""
        if self._line is not None:
            self._line.close()
        if self._child is not None and self._owner == os.getpid():
            self._child.kill()
            self._child.wait()
        self._child, self._line, self._read = None, None, 0

    def _connected(self) -> Connection:
        if self._line is not None and self._owner == os.getpid():
            return self._line
        self.close()
        ours, theirs = Pipe()
        command = [sys.executable, "-P", "-c", CHILD, str(theirs.fileno())]
        self._child = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_KEEPS_MEMORY | os.environ,
        )
        theirs.close()
        self._line, self._owner = ours, os.getpid()
        return ours

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_child": None, "_line": None, "_owner": 0, "_read": 0}


def serve(descriptor: int) -> None:
    """The child's side: answer requests until the other end is gone."""
    line, desk = Connection(descriptor), Desk()
    while True:
        try:
            medium, sampling, limits, policy, threads = line.recv()
        except EOFError:
            return
        give(line, _decoded(medium, sampling, limits, policy, Means(threads=threads, room=desk.room)), desk)
        desk.clear()


def _decoded(
    medium: Image | Video, sampling: Sampling, limits: Limits, policy: FetchPolicy, means: Means
) -> Decoded | LlavaNextVideoError:
    try:
        source = cast(Source, medium.source.read() if isinstance(medium.source, Slice) else medium.source)
        if isinstance(medium, Video):
            return read_clip(source, sampling, limits, policy=policy, means=means)
        return read_image(source, limits, policy=policy)
    except LlavaNextVideoError as error:
        told = str(error)
        if isinstance(medium.source, Slice) and told.startswith(unnamed := f"{medium.source.size} bytes: "):
            told = f"{source_name(medium.source)}: {told.removeprefix(unnamed)}"
        return type(error)(told)
    except Exception as error:  # The outermost wall: one clip of a million; the caller counts and names it.
        return MediaError(f"{source_name(medium.source)}: {type(error).__name__}: {error}")
