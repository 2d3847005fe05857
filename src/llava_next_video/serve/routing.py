"""Which of several servers to ask: the one that has read the video already.

Rendezvous hashing: every server gets a score for a key, the highest wins. Nobody keeps a table, all clients
agree, and when a server goes only its own videos move. Load balancers do the same by the header that the
client sends (`X-Media-Key`), with consistent hashing.

Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous", 1996.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HEADER = "X-Media-Key"


def ranked(key: str, servers: Sequence[str]) -> list[str]:
    """The servers, best first, in an order that only the key and their names decide.

    >>> first = ranked("clip", ["http://a", "http://b", "http://c"])
    >>> ranked("clip", ["http://c", "http://a", "http://b"]) == first
    True
    >>> ranked("clip", first[1:]) == first[1:]
    True
    """

    def score(server: str) -> bytes:
        return hashlib.blake2b(f"{server}\0{key}".encode(), digest_size=8).digest()

    return sorted(servers, key=score, reverse=True)
