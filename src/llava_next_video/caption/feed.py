"""Which video is next, and who does it."""

from __future__ import annotations

import hashlib
import heapq
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from llava_next_video.caption.claims import Claims
from llava_next_video.caption.items import Item
from llava_next_video.caption.ledger import Ledger
from llava_next_video.data.record import Slice
from llava_next_video.errors import ConfigError

BLOCK = 32
LEAST_BLOCKS = 100
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A video to be captioned; `attempt` counts from 1."""

    item: Item
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Neighbours in the list, which one process does. Equal lists give equal names on every machine."""

    name: str
    items: tuple[Item, ...]


def share(items: Sequence[Item], index: int, count: int) -> list[Item]:
    """Shard `index` (from 0) of `count`, in order: about as many seconds of video as the others have.

    The longest video goes to the emptiest shard, then the next; all machines must see the same list. Where
    the manifest does not give every duration, sizes in bytes stand for them.

    Raises:
        ConfigError: There is no such shard.
    """
    if not 0 <= index < count:
        raise ConfigError(
            f"shard {index + 1} of {count} was asked for; expected 1 to {max(count, 1)} of {count}"
        )
    timed = all(item.seconds is not None for item in items)
    weights = [item.seconds or 0.0 if timed else float(_bytes(item)) for item in items]
    shards = [(0.0, shard) for shard in range(count)]
    owner = [0] * len(items)
    for place in sorted(range(len(items)), key=lambda place: -weights[place]):
        load, shard = heapq.heappop(shards)
        owner[place] = shard
        heapq.heappush(shards, (load + max(weights[place], 1e-9), shard))
    return [item for item, shard in zip(items, owner, strict=True) if shard == index]


def blocks_of(items: Sequence[Item]) -> list[Block]:
    """The list in blocks of at most 32, and in a hundred blocks or more."""
    size = max(1, min(BLOCK, len(items) // LEAST_BLOCKS))
    groups = [tuple(items[start : start + size]) for start in range(0, len(items), size)]
    return [
        Block(
            name=hashlib.sha256("\n".join(item.id for item in group).encode()).hexdigest()[:20], items=group
        )
        for group in groups
    ]


class Feed:
    """Hands out what nobody else does; for one thread.

    Attributes:
        out: Tasks that were handed out and not settled.
    """

    def __init__(self, items: Sequence[Item], ledger: Ledger, claims: Claims) -> None:
        """Blocks that are done are left out at once."""
        self.out = 0
        self._ledger = ledger
        self._claims = claims
        self._blocks = deque(block for block in blocks_of(items) if not self._done(block))
        self._theirs: deque[Block] = deque()
        self._looked_s = 0.0
        self._open: deque[Task] = deque()
        self._later: list[tuple[float, int, Task]] = []
        self._numbers = count()
        self._claimed: list[Block] = []

    @property
    def over(self) -> bool:
        """Whether everything is done, by us or by others."""
        return not (self.out or self._open or self._later or self._blocks or self._theirs)

    @property
    def waits_for_others(self) -> bool:
        """Whether only blocks of other processes are left."""
        return bool(self._theirs) and not (self.out or self._open or self._later or self._blocks)

    def next(self) -> Task | None:
        """The next task; None if there is none now."""
        now = time.monotonic()
        if self._later and self._later[0][0] <= now:
            self._open.appendleft(heapq.heappop(self._later)[2])
        while not self._open and self._blocks:
            self._claim(self._blocks.popleft())
        if not self._open and self._theirs and now - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now
            self._ledger.refresh()
            for _ in range(len(self._theirs)):
                self._claim(self._theirs.popleft())
        if not self._open:
            return None
        self.out += 1
        return self._open.popleft()

    def settle(self) -> None:
        """A task that was handed out has its row."""
        self.out -= 1

    def again(self, task: Task, after_s: float, *, counted: bool = True) -> None:
        """A task that was handed out shall be tried again later."""
        self.out -= 1
        later = replace(task, attempt=task.attempt + counted)
        heapq.heappush(self._later, (time.monotonic() + after_s, next(self._numbers), later))

    def release(self) -> None:
        """Give up the claims on blocks that are in the log."""
        for block in self._claimed:
            if self._logged(block):
                self._claims.release(block.name)
        self._claimed = [block for block in self._claimed if not self._logged(block)]

    def _claim(self, block: Block) -> None:
        if self._done(block):
            return
        if self._claims.take(block.name) is not None:
            self._theirs.append(block)
            return
        # Whoever had it before may have finished it since we last read the log.
        self._ledger.refresh()
        self._claimed.append(block)
        self._open.extend(Task(item=item) for item in block.items if item.id not in self._ledger)

    def _done(self, block: Block) -> bool:
        return all(item.id in self._ledger for item in block.items)

    def _logged(self, block: Block) -> bool:
        return all(self._ledger.logged(item.id) for item in block.items)


def _bytes(item: Item) -> int:
    """Size of a video's file; 0 where it cannot be told."""
    if isinstance(item.source, Slice):
        return item.source.size
    try:
        return os.path.getsize(item.source) if isinstance(item.source, str) else 0
    except OSError:
        return 0
