"""What one request cost and saw: for its usage, its echo and the log."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from llava_next_video.media import Clip, Picture
from llava_next_video.messages import Turn
from llava_next_video.serve.bridge import Bridge, Piece
from llava_next_video.serve.media import MediaDesk
from llava_next_video.serve.reading import Wanted, Wish


@dataclass(slots=True, kw_only=True)
class Account:
    """Filled in while a request is answered."""

    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    prompt_tokens: int = 0
    visual_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: dict[int, int] = field(default_factory=dict)
    media: list[dict[str, object]] = field(default_factory=list)
    finish: str | None = None

    def add(self, piece: Piece) -> None:
        """Book a piece of an answer."""
        self.completion_tokens[piece.index] = piece.output.completion_tokens
        if piece.index == 0:
            self.cached_tokens = piece.output.cached_tokens
        self.finish = piece.finish or self.finish

    @property
    def usage(self) -> dict[str, object]:
        """In the words of the chat and completions APIs."""
        answer = sum(self.completion_tokens.values())
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": answer,
            "total_tokens": self.prompt_tokens + answer,
            "prompt_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "visual_tokens": self.visual_tokens,
            },
        }

    @property
    def figures(self) -> dict[str, object]:
        """For a line of the log."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "visual_tokens": self.visual_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": sum(self.completion_tokens.values()),
            "media": len(self.media),
            "finish": self.finish,
        }


def echo(medium: Clip | Picture) -> dict[str, object]:
    """What the model saw of a medium, for the client to check."""
    size = medium.size._asdict()
    if isinstance(medium, Picture):
        return {"kind": "image", "size": size}
    return {
        "kind": "video",
        "size": size,
        "frame_times_s": [round(time_s, 3) for time_s in medium.times_s],
        "frame_indices": list(medium.indices),
        "frame_count": medium.frame_count,
        "frames_per_second": medium.frames_per_second,
        "duration_s": medium.duration_s,
        "sampling": medium.sampling.how,
    }


async def converse(
    media: MediaDesk,
    bridge: Bridge,
    turns: Sequence[Turn],
    wanted: Sequence[Wanted],
    wish: Wish,
    tenant: bytes,
    account: Account,
) -> AsyncGenerator[Piece]:
    """The answers to a conversation, piece by piece; what it holds is let go when it ends or is left."""
    async with media.seen(wanted, tenant) as seen:
        inputs = await bridge.prepare(turns, [one.medium for one in seen], tenant)
        account.media = [echo(one.medium) for one in seen]
        account.prompt_tokens += len(inputs.ids)
        account.visual_tokens = inputs.visual_tokens
        async with aclosing(bridge.answers([inputs], wish, tenant)) as pieces:
            async for piece in pieces:
                account.add(piece)
                yield piece
