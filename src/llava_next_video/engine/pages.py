"""Pages of keys and values: who holds them, and what they hold.

A page knows its content by a hash chained from the start of the prompt, so that equal pages can be shared.
Only whole pages that have been computed are published under their hash.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llava_next_video.inputs import Medium

_TAKEN = np.iinfo(np.int64).max


def page_hashes(
    ids: Sequence[int],
    media: Sequence[Medium],
    *,
    page_tokens: int,
    salt: bytes = b"",
    known: Sequence[bytes] = (),
) -> list[bytes]:
    """A 256-bit hash for each whole page of `ids`, chained, so that it stands for all that comes before it.

    A placeholder id says nothing about the picture behind it, so the key of the medium and the offset inside
    it are hashed too. `salt` separates tenants who must not share. `known` are the hashes of the first pages.

    >>> one, two = page_hashes([1, 2, 3, 4, 5], [], page_tokens=2)
    >>> page_hashes([1, 2, 3, 4], [], page_tokens=2) == [one, two]
    True
    >>> page_hashes([9, 2, 3, 4], [], page_tokens=2)[1] == two
    False
    """
    hashes = list(known)
    for page in range(len(hashes), len(ids) // page_tokens):
        start, end = page * page_tokens, (page + 1) * page_tokens
        state = hashlib.blake2b(hashes[-1] if hashes else b"salt" + salt, digest_size=32)
        state.update(struct.pack(f"<{page_tokens}q", *ids[start:end]))
        for medium in media:
            if medium.start < end and medium.start + medium.tokens > start:
                state.update(struct.pack("<qq", len(medium.key), start - medium.start))
                state.update(medium.key)
        hashes.append(state.digest())
    return hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCounts:
    """How many pages are used by requests, kept for later, and empty."""

    used: int
    cached: int
    free: int


class PagePool:
    """Gives out pages, shares equal ones, and forgets the least recently used.

    Pages are given in contiguous runs where possible, so that attention on a CPU need not copy them.
    """

    def __init__(self, count: int, page_tokens: int) -> None:
        self.count = count
        self.page_tokens = page_tokens
        self._references = np.zeros(count, dtype=np.int64)
        self._released = np.zeros(count, dtype=np.int64)  # when it fell idle; 0: holds nothing worth keeping
        self._wished = np.zeros(count, dtype=bool)  # where a running request would like to grow
        self._wishes: dict[tuple[int, int], tuple[int, int]] = {}
        self._hashes: list[bytes | None] = [None] * count
        self._page_of: dict[bytes, int] = {}
        self._clock = 0
        self._idle = count

    @property
    def available(self) -> int:
        """Pages that no request holds: empty ones, and cached ones that may be forgotten."""
        return self._idle

    @property
    def held(self) -> int:
        """Pages that some request holds, counted anew."""
        return max(int(np.count_nonzero(self._references)), self.count - self._idle)

    def counts(self) -> PageCounts:
        """How many pages are in each state."""
        cached = sum(1 for page in self._page_of.values() if not self._references[page])
        return PageCounts(used=self.count - self._idle, cached=cached, free=self._idle - cached)

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Published pages for the longest run of these hashes, from the first one on."""
        pages = []
        for digest in hashes:
            page = self._page_of.get(digest)
            if page is None:
                break
            pages.append(page)
        return pages

    def idle_among(self, pages: Iterable[int]) -> int:
        """How many of these published pages no request holds."""
        return sum(1 for page in pages if not self._references[page])

    def hold(self, pages: Iterable[int]) -> None:
        """Keep these published pages from being forgotten: one more request uses them."""
        for page in pages:
            self._idle -= not self._references[page]
            self._references[page] += 1

    def take(
        self, count: int, *, owner: tuple[int, int], after: int | None = None, growth: int = 0
    ) -> list[int]:
        """Pages to write to: right behind page `after` if it can be, else a new run with room to grow.

        `growth` pages behind a new run are given to others last. There must be `available` pages.
        """
        if count > self._idle:
            raise ValueError(f"{count} pages wanted, {self._idle} available")
        pages = self._behind(after, count, owner) if after is not None else None
        if pages is None:
            pages = self._run(count, owner, growth) or self._run(count, owner, 0) or self._scattered(count)
        for page in pages:
            self._forget(page)
            self._references[page] = 1
        self._idle -= count
        return pages

    def publish(self, page: int, digest: bytes) -> None:
        """Say what a computed page holds; the first of equal pages is the one to be found."""
        if self._hashes[page] is None and digest not in self._page_of:
            self._hashes[page] = digest
            self._page_of[digest] = page

    def release(self, pages: Sequence[int], *, owner: tuple[int, int]) -> None:
        """Give pages back; the last ones are forgotten first, as fewer requests can share them."""
        self._unwish(owner)
        for page in reversed(pages):
            self._references[page] -= 1
            if not self._references[page]:
                self._idle += 1
                self._clock += 1
                self._released[page] = self._clock if self._hashes[page] is not None else 0

    def forget_all(self) -> None:
        """Empty every page that no request holds."""
        for page in np.flatnonzero(self._references == 0):
            self._forget(int(page))

    def check(self, held: Iterable[Sequence[int]]) -> None:
        """Raise AssertionError unless the pages held by requests are exactly the pages counted as used."""
        references = np.zeros(self.count, dtype=np.int64)
        for pages in held:
            np.add.at(references, np.asarray(pages, dtype=np.int64), 1)
        assert (references == self._references).all(), "references differ from what requests hold"
        counts = self.counts()
        assert counts.used + counts.cached + counts.free == self.count, (
            f"pages leak: {counts} of {self.count}"
        )
        assert self._idle == int((references == 0).sum()), "idle pages are miscounted"
        assert all(self._hashes[page] == digest for digest, page in self._page_of.items()), "hashes disagree"
        assert sum(digest is not None for digest in self._hashes) == len(self._page_of), "a hash was lost"

    def _cost(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """What taking each page would lose: nothing, something cached, or room to grow."""
        cost = np.where(self._wished, self._released + self._clock + 1, self._released)
        return np.where(self._references > 0, _TAKEN, cost)

    def _behind(self, after: int, count: int, owner: tuple[int, int]) -> list[int] | None:
        start, end = after + 1, after + 1 + count
        if end > self.count or self._references[start:end].any():
            return None
        wish = self._wishes.get(owner)
        mine = wish is not None and wish[0] <= start and end <= wish[1]
        if not mine and (self._released[start:end].any() or self._wished[start:end].any()):
            return None
        return list(range(start, end))

    def _run(self, count: int, owner: tuple[int, int], growth: int) -> list[int] | None:
        length = count + growth
        if length > self.count:
            return None
        windows = np.lib.stride_tricks.sliding_window_view(self._cost(), length)
        dearest = windows.max(axis=1)
        start = int(dearest.argmin())
        if dearest[start] == _TAKEN or (growth and self._wished[start : start + length].any()):
            return None
        if growth:
            self._unwish(owner)
            self._wishes[owner] = (start + count, start + length)
            self._wished[start + count : start + length] = True
        return list(range(start, start + count))

    def _scattered(self, count: int) -> list[int]:
        cheapest = np.argsort(self._cost(), kind="stable")[:count]
        return sorted(int(page) for page in cheapest)

    def _forget(self, page: int) -> None:
        digest = self._hashes[page]
        if digest is not None:
            del self._page_of[digest]
            self._hashes[page] = None
        self._released[page] = 0

    def _unwish(self, owner: tuple[int, int]) -> None:
        wish = self._wishes.pop(owner, None)
        if wish is not None:
            self._wished[wish[0] : wish[1]] = False
