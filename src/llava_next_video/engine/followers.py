"""The leader's side of a shared network: other processes are started, told of each step, and ended.

Whoever is gone is noticed: a step then ends with one error, and what is left of the network ends with it.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from llava_next_video.engine.collective import LEADER, Collective, PartedError
from llava_next_video.engine.follower import LOST, Job
from llava_next_video.engine.parallel import Share
from llava_next_video.engine.scheduler import Chunk
from llava_next_video.engine.settings import EngineSettings
from llava_next_video.engine.telling import Teller
from llava_next_video.errors import ConfigError, LlavaNextVideoError
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.parallel import refuse_uneven

_CHILD = "import sys; from llava_next_video.engine.follower import follow; follow(*map(int, sys.argv[1:]))"
_END_S = 5.0
CLOSED = "the engine was closed and computes nothing more; load the network again"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Processes:
    """Those of the followers, and whether one has ended; no more is needed to end them all.

    The folder in which they meet stays as long as they do: NCCL goes on looking into it.
    """

    collective: Collective
    owner: int = field(default_factory=os.getpid)
    folder: Path = field(default_factory=lambda: Path(mkdtemp(prefix="llava-next-video-")))
    lines: list[Connection] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    watches: list[threading.Thread] = field(default_factory=list)

    def start(self, job: Job) -> None:
        """One more."""
        ours, theirs = Pipe()
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the leader's is for answers
            start_new_session=True,  # Ctrl-C in a terminal is for the leader
        )
        theirs.close()
        self.lines.append(ours)
        self.children.append(child)
        watch = threading.Thread(target=self._watch, args=(child,), daemon=True)
        watch.start()
        self.watches.append(watch)
        with suppress(OSError):  # one that has ended already is found out when it is asked
            ours.send(job)

    def end(self) -> None:
        """All of them, whatever they are doing; not by a process that the leader forked."""
        if os.getpid() != self.owner:
            return
        self.gone.set()
        for line in self.lines:
            line.close()
        deadline_s = time.monotonic() + _END_S
        for child in self.children:
            try:
                child.wait(timeout=max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
        for watch in self.watches:  # one that is cut off inside torch brings the whole process down with it
            watch.join(_END_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Once it has ended, nobody here may wait for it: sums on a GPU would, for ever."""
        child.wait()
        self.gone.set()
        self.collective.leave()


class Followers:
    """The processes that have the other shares of a network.

    Attributes:
        settings: Of the leader, with its device.
        share: Of the leader.
    """

    def __init__(
        self, folder: Path, config: LlavaNextVideoConfig, adapter: Path | None, settings: EngineSettings
    ) -> None:
        """Start them; each begins to load its share from the folder.

        Raises:
            ConfigError: The network or the machine cannot be shared so.
        """
        refuse_shared(config, settings)
        count = settings.tensor_parallel
        self.settings = _placed(settings, LEADER)
        collective = Collective(rank=LEADER, count=count, device=torch.device(self.settings.device))
        self.share = Share(rank=LEADER, count=count, add_up=collective.add_up)
        self._collective, self._teller = collective, Teller(settings.max_requests)
        self._over: str | None = None
        self._processes = _Processes(collective=collective)
        self._end = weakref.finalize(self, self._processes.end)
        for rank in range(1, count):
            job = Job(
                folder=folder,
                config=config,
                adapter=adapter,
                settings=_placed(settings, rank),
                rank=rank,
                threads=torch.get_num_threads(),
            )
            self._processes.start(job)

    @classmethod
    @contextmanager
    def starting(
        cls, folder: Path, config: LlavaNextVideoConfig, adapter: Path | None, settings: EngineSettings
    ) -> Iterator[Followers]:
        """Followers that are ended again if what is done with them meanwhile fails."""
        followers = cls(folder, config, adapter, settings)
        try:
            yield followers
        except BaseException:
            followers.close()
            raise

    def loaded(self) -> None:
        """Wait until each has its share.

        Raises:
            LlavaNextVideoError: One could not load it; whatever kind of error it had.
        """
        self._hear()

    def begin(self, pages: int) -> None:
        """Let them make room for so many pages, and meet them.

        Raises:
            LlavaNextVideoError: One has no such room, or is gone.
        """
        self._say(pages)
        self._hear()
        meeting = self._processes.folder / "meeting"
        self._say(meeting)
        try:
            self._collective.join(meeting)
        except PartedError as error:
            raise self._lost(error) from error

    @contextmanager
    def step(self, chunks: Sequence[Chunk], embedded: Tensor) -> Iterator[None]:
        """They compute this step while the leader does.

        Ctrl-C waits for its end: half a step would leave the processes with different halves.

        Raises:
            LlavaNextVideoError: One of them is gone.
        """
        self.refuse_gone()
        with _uninterrupted():
            try:
                self._say(self._teller.pieces(chunks))
                self._collective.hand_out(embedded)
                yield
            except PartedError as error:
                raise self._lost(error) from error
            except BaseException as error:
                self._over = self._over or f"a step ended with {type(error).__name__}; load the network again"
                self.close()
                raise
        self.refuse_gone()

    def refuse_gone(self) -> None:
        """Raise if one of them ended: what was computed since is worth nothing.

        Raises:
            LlavaNextVideoError: Which one, and how it ended.
        """
        if self._over is not None:
            raise LlavaNextVideoError(self._over)
        if self._processes.gone.is_set():
            raise self._lost()

    def close(self) -> None:
        """End them; may be called again."""
        self._over = self._over or CLOSED
        self._end()

    def _say(self, message: Any) -> None:
        told = pickle.dumps(message)
        try:
            for line in self._processes.lines:
                line.send_bytes(told)
        except OSError as error:
            raise self._lost() from error

    def _hear(self) -> None:
        """One answer of each."""
        for rank, line in enumerate(self._processes.lines, 1):
            try:
                answer = line.recv()
            except (EOFError, OSError) as error:
                raise self._lost() from error
            if isinstance(answer, LlavaNextVideoError):
                self.close()
                raise type(answer)(f"follower {rank}: {answer}")

    def _lost(self, error: PartedError | None = None) -> LlavaNextVideoError:
        """What to raise now that one is gone, or a sum failed; the others are ended."""
        self._over = self._over or f"{self._who(error)}; what was under way is lost: load the network again"
        self._end()
        return LlavaNextVideoError(self._over)

    def _who(self, error: PartedError | None) -> str:
        """Which one ended first, and how. Those that only lost a sum to it ended with `LOST`."""
        deadline_s = time.monotonic() + _END_S
        lost = (
            "a follower did not take part"
            if error is None
            else f"sums failed: {' '.join(str(error).split())}"
        )
        while time.monotonic() < deadline_s:
            for rank, (line, child) in enumerate(
                zip(self._processes.lines, self._processes.children, strict=True), 1
            ):
                code = child.returncode
                if code is None:
                    continue
                if code == LOST:
                    with suppress(EOFError, OSError):
                        lost = f"follower {rank} lost the others: {line.recv()}"
                    continue
                try:
                    return f"follower {rank} gave up: {line.recv()}"
                except (EOFError, OSError):
                    return f"follower {rank} ended (exit status {code})"
            time.sleep(0.01)
        return lost


def refuse_shared(config: LlavaNextVideoConfig, settings: EngineSettings) -> None:
    """Raise unless so many processes can share this network on this machine.

    Raises:
        ConfigError: Heads that are no multiple, too few GPUs, or a GPU that was named.
    """
    count, device = settings.tensor_parallel, torch.device(settings.device)
    refuse_uneven(config.text_config, count)
    if device.type == "cuda":
        if device.index not in (None, 0):
            raise ConfigError(
                f"tensor_parallel takes the first {count} GPUs, and device is {device}; leave it out, and "
                "choose GPUs with CUDA_VISIBLE_DEVICES"
            )
        there = torch.cuda.device_count()
        if count > there:
            raise ConfigError(f"tensor_parallel is {count}, and GPUs there are {there}; ask for no more")


def _placed(settings: EngineSettings, rank: int) -> EngineSettings:
    on_gpu = torch.device(settings.device).type == "cuda"
    return replace(settings, device=f"cuda:{rank}") if on_gpu else settings


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C for afterwards, in the thread that hears it; the second one goes through."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    pressed: list[tuple[Any, ...]] = []

    def press(*what: Any) -> None:
        pressed.append(what)
        if len(pressed) > 1 and callable(before):
            before(*what)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed and callable(before):
        before(*pressed[0])
