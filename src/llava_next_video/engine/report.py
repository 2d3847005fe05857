"""What the engine tells about itself and about whole answers."""

from __future__ import annotations

from dataclasses import dataclass

from llava_next_video.engine.request import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that was generated for one of the answers to a prompt."""

    ids: tuple[int, ...]
    last: Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the engine is doing, and what it did since it was made."""

    waiting: int
    running: int
    pages: int
    pages_used: int
    pages_cached: int
    features_in_use: int
    feature_bytes_idle: int
    preemptions: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    frames: int
    finished: int
