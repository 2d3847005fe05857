"""Which requests look at the same pages, and where pages lie in a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Pages `start` to `end` of all these members are the same."""

    members: tuple[int, ...]
    start: int
    end: int


def shared_pages(tables: Sequence[Sequence[int]], *, at_least: int) -> list[Shared]:
    """Runs of at least so many pages that several tables have in the same place, longest company first.

    >>> shared_pages([[7, 8, 9], [7, 8, 4], [1, 2]], at_least=2)
    [Shared(members=(0, 1), start=0, end=2)]

    A common beginning too short to matter joins what a part of the company shares behind it:

    >>> shared_pages([[7, 8, 1], [7, 8, 2], [7, 5, 6], [7, 5, 3]], at_least=2)
    [Shared(members=(0, 1), start=0, end=2), Shared(members=(2, 3), start=0, end=2)]
    """
    return list(_split(tables, tuple(range(len(tables))), 0, 0, at_least))


def _split(
    tables: Sequence[Sequence[int]], members: tuple[int, ...], start: int, depth: int, at_least: int
) -> Iterator[Shared]:
    branches: dict[int, list[int]] = {}
    for member in members:
        if depth < len(tables[member]):
            branches.setdefault(tables[member][depth], []).append(member)
    for branch in branches.values():
        if len(branch) < 2:
            continue
        end = _common(tables, branch, depth + 1)
        if end - start >= at_least:
            yield Shared(members=tuple(branch), start=start, end=end)
            yield from _split(tables, tuple(branch), end, end, at_least)
        else:
            yield from _split(tables, tuple(branch), start, end, at_least)


def _common(tables: Sequence[Sequence[int]], members: Sequence[int], depth: int) -> int:
    shortest = min(len(tables[member]) for member in members)
    first = tables[members[0]]
    while depth < shortest and all(tables[member][depth] == first[depth] for member in members[1:]):
        depth += 1
    return depth


def runs(pages: Sequence[int], start: int, end: int, page_tokens: int) -> list[tuple[int, int]]:
    """Where tokens `start` to `end` of a request lie, as few ranges of slots as possible.

    >>> runs([4, 5, 9], 2, 11, page_tokens=4)
    [(18, 24), (36, 39)]
    """
    found: list[tuple[int, int]] = []
    for index in range(start // page_tokens, -(-end // page_tokens)):
        first = pages[index] * page_tokens
        begin = first + max(start - index * page_tokens, 0)
        stop = first + min(end - index * page_tokens, page_tokens)
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((begin, stop))
    return found


def companies(tables: Sequence[Sequence[int]], *, at_least: int) -> list[tuple[tuple[int, ...], int]]:
    """Members that begin with the same pages and how many, nobody in two of them.

    Where several ways are possible, the one first that saves the most reading:

    >>> companies([[7, 8, 9, 4], [7, 8, 9, 4], [7, 5, 6], [7, 1, 3]], at_least=1)
    [((0, 1), 4), ((2, 3), 1)]
    """
    found = sorted(
        shared_pages(tables, at_least=at_least),
        key=lambda shared: (len(shared.members) - 1) * shared.end,
        reverse=True,
    )
    taken: set[int] = set()
    chosen = []
    for shared in found:
        free = tuple(member for member in shared.members if member not in taken)
        if len(free) > 1:
            chosen.append((free, shared.end))
            taken.update(free)
    return chosen
