"""What comes of asking about a video, whoever is asked."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from llava_next_video.caption.cells import Cell, Missing
from llava_next_video.caption.items import Item
from llava_next_video.caption.quality import flags
from llava_next_video.caption.row import Finish, Row
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.record import source_name
from llava_next_video.errors import LlavaNextVideoError


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A caption that was given before, and the video it was given for."""

    id: str
    caption: str
    finish_reason: Finish
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What tells videos apart: the hash of the bytes, and (for near duplicates) a thumbnail."""

    sha256: str
    prompt: str
    duration_s: float | None
    look: str | None

    @property
    def key(self) -> bytes:
        """Equal for equal bytes and equal prompts."""
        return hashlib.sha256(f"{self.sha256}\n{self.prompt}".encode()).digest()[:16]


class DescriberGoneError(LlavaNextVideoError):
    """The model or all servers are gone: no video's fault, so the run stops and no video is blamed."""


class TransientError(LlavaNextVideoError):
    """What may go away by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A caption and what it cost."""

    caption: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    visual_tokens: int
    cached_tokens: int
    completion_tokens: int
    wait_ms: float
    generate_ms: float


Tell = Callable[[Said | LlavaNextVideoError], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A video as far as it was read; `content` is its describer's own."""

    sight: Sight
    times_s: tuple[float, ...]
    bytes: int
    content: object


@runtime_checkable
class Describer(Protocol):
    """A model, here or elsewhere; its methods may be called from any thread.

    Attributes:
        at_once: Videos that it can use at a time.
    """

    at_once: int

    def see(self, item: Item, decoder: Decoder) -> Seen:
        """Read a video.

        Raises:
            MediaError: It cannot be read.
        """

    def ask(self, item: Item, seen: Seen, tell: Tell) -> None:
        """Describe a video that was read; returns at once, and tells later, from another thread.

        Raises:
            LlavaNextVideoError: It cannot be asked; then nothing will be told.
        """

    def close(self) -> None:
        """Drop what is under way; nothing more will be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A describer that is made when it is needed.

    Attributes:
        name: For the rows.
        identity: All that decides its captions; a run is continued only with an equal one.
        load: Makes the describer.
    """

    name: str
    identity: Mapping[str, object]
    load: Callable[[], Describer]


Outcome = Said | Told | LlavaNextVideoError


def told_of(item: Item, said: Said) -> Told:
    """What was said about a video, for others that show the same."""
    suspicious = flags(said.caption, cut=said.finish_reason == "length")
    return Told(id=item.id, caption=said.caption, finish_reason=said.finish_reason, flags=suspicious)


def row_of(
    item: Item, outcome: Outcome, sight: Sight | None, *, times_s: tuple[float, ...] = (), **known: Any
) -> Row:
    """The row that an outcome becomes; `known` are the fields that the outcome does not have."""
    row: dict[str, Any] = {
        "id": item.id,
        "source": item.source.name if isinstance(item.source, Cell | Missing) else source_name(item.source),
        "prompt": item.prompt,
        "finished_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        **known,
    }
    if sight is not None:
        row |= {"source_sha256": sight.sha256, "duration_s": sight.duration_s, "look": sight.look}
        row |= {"frame_times_s": times_s}
    if isinstance(outcome, Said):
        row |= {name: getattr(outcome, name) for name in Said.__slots__}
        row |= {"flags": told_of(item, outcome).flags}
    elif isinstance(outcome, Told):
        row |= {"duplicate_of": outcome.id, "caption": outcome.caption}
        row |= {"finish_reason": outcome.finish_reason, "flags": outcome.flags}
    else:
        cause = outcome.__cause__ if isinstance(outcome, TransientError) else None
        row |= {
            "finish_reason": "error",
            "error_class": type(cause or outcome).__name__,
            "error": str(outcome),
        }
    return Row(**row)
