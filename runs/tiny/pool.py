"""Scenes without end: worker processes make rows of numbers, a pool on the device keeps and mixes them.

A device that learns faster than processors invent sees a scene several times, drawn anew each time.
"""

from __future__ import annotations

import random
import time
from collections import deque
from threading import Thread

import numpy as np
import torch
from scenes import Mix, row_type, rows
from text import Words, make_tokenizer
from torch import Tensor, multiprocessing

_AT_ONCE, _READY = 256, 16


def to_device(table: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """Columns of a table as tensors."""
    return {name: torch.from_numpy(table[name].copy()).to(device) for name in table.dtype.names}


class Pool:
    """Up to `capacity` scenes of one mix on the device; new ones take the places of the oldest."""

    def __init__(self, frames: int, room: int, capacity: int, device: torch.device) -> None:
        empty = np.zeros(1, row_type(frames, room))
        self.columns = {
            name: column.expand(capacity, *column.shape[1:]).clone()
            for name, column in to_device(empty, device).items()
        }
        self.capacity, self.device, self.made = capacity, device, 0
        self.there = torch.zeros((), dtype=torch.float64, device=device)

    def put(self, table: np.ndarray) -> None:
        """Take in new scenes."""
        places = (self.made + torch.arange(len(table), device=self.device)) % self.capacity
        for name, column in to_device(table, self.device).items():
            self.columns[name][places] = column
        self.made += len(table)
        self.there.fill_(min(self.made, self.capacity))

    def draw(self, count: int) -> dict[str, Tensor]:
        """So many of the scenes that are there, at random; the device alone knows how many there are."""
        chosen = (torch.rand(count, dtype=torch.float64, device=self.device) * self.there).long()
        return {name: column[chosen] for name, column in self.columns.items()}


class Makers:
    """Processes that invent scenes for several pools until they are stopped."""

    def __init__(self, mixes: list[Mix], rooms: list[int], workers: int, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.full = context.Queue(maxsize=2 * workers)
        self.mixes, self.stopped = mixes, context.Event()
        self.share = context.Array("d", [1.0] * len(mixes))
        self.processes = [
            context.Process(
                target=_make,
                args=(mixes, rooms, self.full, self.stopped, self.share, f"{seed}/{n}"),
                daemon=True,
            )
            for n in range(workers)
        ]
        for process in self.processes:
            process.start()
        self.ready: deque[tuple[int, np.ndarray]] = deque()
        Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while True:
            # Few at once: moving many rows would hold up the steps.
            while len(self.ready) >= _READY:
                time.sleep(0.01)
            self.ready.append(self.full.get())

    def want(self, shares: list[float]) -> None:
        """How much of each mix is to be made from now on."""
        for index, share in enumerate(shares):
            self.share[index] = share

    def fill(self, pools: list[Pool], *, least: int = 0) -> None:
        """Move what is ready into the pools; wait while a wanted one holds fewer than `least`."""
        begun = time.monotonic()
        while True:
            arrived: dict[int, list[np.ndarray]] = {}
            while self.ready:
                which, table = self.ready.popleft()
                arrived.setdefault(which, []).append(table)
            for which, tables in arrived.items():
                pools[which].put(np.concatenate(tables)[-pools[which].capacity :])
            if all(pool.made >= least for pool, share in zip(pools, self.share, strict=True) if share > 0):
                return
            if time.monotonic() - begun > 240:
                raise RuntimeError("too few scenes were made in four minutes")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the processes."""
        self.stopped.set()
        for process in self.processes:
            process.terminate()


def _make(mixes, rooms, full, stopped, share, seed: str) -> None:
    torch.set_num_threads(1)
    rng, words = random.Random(seed), Words(make_tokenizer())
    while not stopped.is_set():
        which = rng.choices(range(len(mixes)), list(share))[0]
        full.put((which, rows(rng, _AT_ONCE, mixes[which], words, rooms[which])))
        if len(words.known) > 200_000:
            words.known.clear()
