"""What is known of one captioned video: a row of the output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Finish = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One video, described or refused; what is not known is None or empty.

    Attributes:
        id: The video's name in its manifest; the output has each once.
        source: Path, URL, or place in an archive.
        source_sha256: Hash of the source's bytes.
        duration_s: Seconds of the clip.
        frame_times_s: Moments that the model saw, in seconds.
        prompt: What was asked.
        caption: What was answered; None after an error.
        finish_reason: `stop`: the model ended; `length`: it was cut; `error`: there is no caption.
        flags: `empty`, `repetition`, `truncated`: a caption to distrust.
        duplicate_of: Id of the video whose caption this is, as the two show the same.
        prompt_tokens: Visual tokens included; `cached_tokens` of them were not computed anew.
        read_ms: Reading, decoding and preparing.
        wait_ms: From being handed to the model until it began.
        generate_ms: From then until the last token.
        attempts: Times it was tried; more than 1 after transient errors.
        error_class: Name of the error, and the sentence that came with it in `error`.
        model: Name of the checkpoint or server.
        fingerprint: Of model, prompt, frames and generation settings; equal in all rows of a run.
        look: Thumbnail by which near duplicates are found (base64); only where that was asked for.
        finished_at: UTC, ISO 8601.
    """

    id: str
    source: str
    prompt: str
    finish_reason: Finish
    model: str
    fingerprint: str
    attempts: int
    finished_at: str
    source_sha256: str | None = None
    duration_s: float | None = None
    frame_times_s: tuple[float, ...] = ()
    caption: str | None = None
    flags: tuple[str, ...] = ()
    duplicate_of: str | None = None
    prompt_tokens: int = 0
    visual_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    read_ms: float = 0.0
    wait_ms: float = 0.0
    generate_ms: float = 0.0
    error_class: str | None = None
    error: str | None = None
    look: str | None = None

    def as_json(self) -> str:
        """The row on one line."""
        return json.dumps({name: getattr(self, name) for name in NAMES}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """The row that a line of `as_json` spells.

        Raises:
            ValueError: The line is no whole row.
        """
        values = json.loads(line)
        if not isinstance(values, dict) or values.keys() != set(NAMES):
            raise ValueError("a row is a JSON object with all its fields")
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Row:
        """The row with these fields, lists for tuples."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**fields)


NAMES = tuple(field.name for field in dataclasses.fields(Row))
