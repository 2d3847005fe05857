"""A process that computes one share of the layers, as its leader says.

It knows neither requests nor words: for each step it hears positions and pages, gets what the tokens begin
as, and takes part in the sums. It ends when the other end of its line is gone.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import torch

from llava_next_video.engine.assembly import layers_of
from llava_next_video.engine.build import built_decoder
from llava_next_video.engine.collective import Collective, PartedError
from llava_next_video.engine.decoder import Decoder
from llava_next_video.engine.forward import Forward
from llava_next_video.engine.parallel import Share
from llava_next_video.engine.settings import EngineSettings
from llava_next_video.engine.telling import Listener, Piece
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.weights import FolderWeights

LOST = 3
"""Exit status of a follower whose sums failed, as another process is gone."""

_LOOK_EVERY_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a follower must know before the first step.

    Attributes:
        folder, config, adapter: Where the weights are, as `Engine.from_folder` takes them.
        settings: The leader's, with the device of this follower.
        rank: Of its share.
        threads: That it computes with on a CPU.
    """

    folder: Path
    config: LlavaNextVideoConfig
    adapter: Path | None
    settings: EngineSettings
    rank: int
    threads: int


def follow(descriptor: int, leader: int) -> NoReturn:
    """The whole life of a follower, at the other end of this line to a leader with that process id.

    It hears its job, how many pages there are, where to meet, and then step after step; to each of the first
    two it answers None, or what went wrong.
    """
    line = Connection(descriptor)
    heard: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(line, leader, heard), daemon=True).start()
    try:
        job: Job = heard.get()
        torch.set_num_threads(job.threads)
        collective, decoder = _loaded(job)
        line.send(None)
        with torch.inference_mode():
            layers = layers_of(decoder, job.settings, pages=heard.get())
            line.send(None)
            collective.join(heard.get())
            _compute(heard, layers, collective)
    except PartedError as error:
        with suppress(OSError):
            line.send(" ".join(str(error).split()))
        os._exit(LOST)
    except Exception as error:  # The outermost wall of the process: its leader tells the user.
        _give_up(line, error)


def _listen(line: Connection, leader: int, heard: SimpleQueue[object]) -> NoReturn:
    """Take in what the leader says; without it the process ends at once, whatever it is doing.

    The line may outlive the leader in the hands of processes that it forked, so that is looked at, too.
    """
    while True:
        try:
            while not line.poll(_LOOK_EVERY_S):
                if os.getppid() != leader:
                    os._exit(0)
            heard.put(line.recv())
        except (EOFError, OSError):
            os._exit(0)


def _loaded(job: Job) -> tuple[Collective, Decoder]:
    count, device = job.settings.tensor_parallel, torch.device(job.settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    collective = Collective(rank=job.rank, count=count, device=device)
    adapter = None if job.adapter is None else Adapter.read(job.adapter)
    weights = FolderWeights(job.folder, job.config, adapter)
    share = Share(rank=job.rank, count=count, add_up=collective.add_up)
    return collective, built_decoder(weights.model, weights, job.settings, share)


def _compute(heard: SimpleQueue[Any], layers: Forward, collective: Collective) -> NoReturn:
    """One step after the other."""
    decoder, listener = layers.decoder, Listener()
    while True:
        pieces: list[Piece] = heard.get()
        chunks = listener.stretches(pieces)
        ropes = decoder.rope.rows([piece.rope for piece in pieces])
        rows = sum(piece.count for piece in pieces)
        hidden = torch.empty(rows, decoder.width, dtype=decoder.between, device=decoder.device)
        collective.hand_out(hidden)
        layers(chunks, ropes, hidden)


def _give_up(line: Connection, error: Exception) -> NoReturn:
    if not isinstance(error, LlavaNextVideoError):
        logger.exception("a follower crashed")
        error = LlavaNextVideoError(f"{type(error).__name__}: {' '.join(str(error).split())}")
    with suppress(OSError):
        line.send(error)
    os._exit(1)
