"""What a leader tells its followers of a step: positions and pages, and of pages only what is new.

Not which tokens: their embeddings come apart from this, from the leader, who has the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llava_next_video.engine.places import Places
from llava_next_video.engine.scheduler import Chunk
from llava_next_video.long_video import RopeScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A chunk, as it is told.

    Attributes:
        place: Stands for its request; there are as many as requests that run together.
        start, count, samples: Of the chunk.
        rope: How its positions are scaled.
        kept: So many pages of the place stay; 0: another request has it now, or all its pages changed.
        pages: Those behind them.
    """

    place: int
    start: int
    count: int
    samples: bool
    rope: RopeScaling | None
    kept: int
    pages: tuple[int, ...]


class Teller:
    """The leader's side: remembers which pages followers know of.

    Args:
        requests: Places; the one that was not told of for longest is given to a new request.
    """

    def __init__(self, requests: int) -> None:
        self._places = Places(requests)

    def pieces(self, chunks: Sequence[Chunk]) -> list[Piece]:
        """A step; every one must be told, in order."""
        return [self._piece(chunk) for chunk in chunks]

    def _piece(self, chunk: Chunk) -> Piece:
        request = chunk.request
        place, kept = self._places.of(request)
        return Piece(
            place=place,
            start=chunk.start,
            count=chunk.count,
            samples=chunk.samples,
            rope=request.rope,
            kept=kept,
            pages=tuple(request.pages[kept:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The pages of whatever request has this place now."""

    id_and_index: tuple[int, int]
    pages: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A chunk, as a follower knows it: a `Stretch`."""

    request: Place
    start: int
    count: int
    samples: bool


class Listener:
    """A follower's side: puts the pages together again."""

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}

    def stretches(self, pieces: Sequence[Piece]) -> list[Told]:
        """The step that was told."""
        return [
            Told(request=self._place(piece), start=piece.start, count=piece.count, samples=piece.samples)
            for piece in pieces
        ]

    def _place(self, piece: Piece) -> Place:
        if not piece.kept:
            self._places[piece.place] = Place(id_and_index=(piece.place, 0), pages=[])
        place = self._places[piece.place]
        place.pages.extend(piece.pages)
        return place
