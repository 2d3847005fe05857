"""Visual features that outlive a request, within so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(slots=True)
class _Entry:
    features: Tensor
    users: set[tuple[int, int]] = field(default_factory=set)


class FeatureCache:
    """Features by media key. Those in use stay; of the others the most recently used, up to `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.misses = 0
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._idle_bytes = 0

    @property
    def in_use(self) -> int:
        """Media whose features some request still needs."""
        return sum(1 for entry in self._entries.values() if entry.users)

    @property
    def idle_bytes(self) -> int:
        """Bytes kept for later."""
        return self._idle_bytes

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def put(self, key: bytes, features: Float[Tensor, "tokens width"]) -> None:
        """Keep features that were just made, until `trim`."""
        if key not in self._entries:
            self._entries[key] = _Entry(features)
            self._idle_bytes += features.nbytes

    def use(self, key: bytes, user: tuple[int, int]) -> Float[Tensor, "tokens width"]:
        """The features of a medium, kept at least until `user` drops them."""
        entry = self._entries[key]
        if not entry.users:
            self._idle_bytes -= entry.features.nbytes
        entry.users.add(user)
        self._entries.move_to_end(key)
        return entry.features

    def drop(self, key: bytes, user: tuple[int, int]) -> None:
        """This user needs the features no more."""
        entry = self._entries.get(key)
        if entry is None or user not in entry.users:
            return
        entry.users.remove(user)
        if not entry.users:
            self._idle_bytes += entry.features.nbytes
        self.trim()

    def trim(self) -> None:
        """Forget the least recently used of the features that nobody needs, down to the limit."""
        if self._idle_bytes <= self.limit_bytes:
            return
        for key in [key for key, entry in self._entries.items() if not entry.users]:
            self._idle_bytes -= self._entries.pop(key).features.nbytes
            if self._idle_bytes <= self.limit_bytes:
                return
