"""What a server allows, and how much of it."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from llava_next_video.errors import ConfigError
from llava_next_video.media import FetchPolicy, Limits

MEBIBYTE = 1 << 20
# An hour at 30 frames a second, 8K pictures, and half a gigabyte of frames.
MEDIUM = Limits(
    bytes=256 * MEBIBYTE, pixels=40_000_000, frames=108_000, duration_s=3600.0, kept_bytes=512 * MEBIBYTE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Limits and choices of one server.

    Attributes:
        model_name: What clients call the model.
        api_keys: Keys that open everything but health and the page; none: everybody may ask.
        origins: Web origins whose pages may ask (CORS); none by default.
        domains: Hosts (with their subdomains) that media may be fetched from; none by default.
        folders: Folders that file:// may read, symbolic links resolved; none by default.
        frames: Frames of a clip that are looked at unless a request says otherwise.
        max_frames: Frames that a request may ask for.
        max_media: Clips and pictures of one request.
        max_requests: Requests that may be under way; the next one is told to come back (429).
        max_body_bytes: Bytes of one request; `bodies_bytes` of all that are under way.
        deadline_s: Seconds that a request may take, from its first byte to its last (504).
        drain_s: Seconds that requests under way get when the server stops.
        decoders: Child processes that fetch and decode media.
        fetch_s: Seconds of fetching one medium; `decode_s`: of fetching and decoding it.
        held_bytes: Frames of requests under way; beyond, the next one waits before it decodes.
        seen_bytes: Frames kept for the next question about the same medium.
        limits: How large one medium may be.
    """

    model_name: str = "llava-next-video"
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    origins: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    frames: int = 8
    max_frames: int = 64
    max_media: int = 16
    max_requests: int = 256
    max_body_bytes: int = 64 * MEBIBYTE
    bodies_bytes: int = 512 * MEBIBYTE
    deadline_s: float | int = 300.0
    drain_s: float | int = 30.0
    decoders: int = max(2, os.cpu_count() or 2)
    fetch_s: float | int = 30.0
    decode_s: float | int = 60.0
    held_bytes: int = 1024 * MEBIBYTE
    seen_bytes: int = 256 * MEBIBYTE
    limits: Limits = MEDIUM

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not value > 0:
                raise ConfigError(f"{one.name} is {value}; it must be more than 0")
        if self.frames > self.max_frames:
            raise ConfigError(f"frames is {self.frames}, more than max_frames, {self.max_frames}; raise that")
        if any(not key.strip() for key in self.api_keys):
            raise ConfigError("an API key is empty; give one that cannot be guessed, or none")

    @property
    def policy(self) -> FetchPolicy:
        """What URLs of media may reach: `data:` always, the network and files once they are allowed."""
        schemes = {"data"} | ({"http", "https"} if self.domains else set())
        return FetchPolicy(
            schemes=frozenset(schemes | ({"file"} if self.folders else set())),
            domains=tuple(domain.lower().strip(".") for domain in self.domains),
            folders=self.folders,
            timeout_s=self.fetch_s,
        )

    def tenant(self, authorization: str) -> bytes | None:
        """Whose request this is, by its header: a salt for everything that is kept; None: nobody's.

        Every key is compared with, in constant time, so that time tells nothing about them.
        """
        if not self.api_keys:
            return b""
        given = _digest(authorization.removeprefix("Bearer ").strip())
        known = [key for key in map(_digest, self.api_keys) if hmac.compare_digest(given, key)]
        return known[0] if known and authorization.startswith("Bearer ") else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
