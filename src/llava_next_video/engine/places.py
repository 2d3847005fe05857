"""Which of so many places a request has, and how many of its pages lie there already."""

from __future__ import annotations

from collections import OrderedDict

from llava_next_video.engine.stretch import Holder


class Places:
    """Places for the page tables of requests; the one unused for longest makes room for a new request.

    Args:
        count: How many there are, numbered from 0.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._known: OrderedDict[tuple[int, int], tuple[int, list[int], int]] = OrderedDict()

    def of(self, request: Holder) -> tuple[int, int]:
        """The place of a request, and how many of its pages are there; the caller brings the others."""
        known = self._known.pop(request.id_and_index, None)
        if known is None:
            place = self._free.pop() if self._free else self._known.popitem(last=False)[1][0]
            kept = 0
        else:
            place, pages, kept = known
            if pages is not request.pages:  # it was sent back to wait, and came again
                kept = 0
        self._known[request.id_and_index] = place, request.pages, len(request.pages)
        return place, kept
