"""What the routes of one server share."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import PromptError
from llava_next_video.inputs import ModelInputs
from llava_next_video.serve.account import Account, converse
from llava_next_video.serve.bridge import Bridge, Piece
from llava_next_video.serve.door import Visit
from llava_next_video.serve.media import MediaDesk
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.protocol import Message, Sampled
from llava_next_video.serve.reading import Wish, read_media, read_turns
from llava_next_video.serve.refusals import Refusal
from llava_next_video.serve.settings import ServeSettings
from llava_next_video.serve.shapes import Tokens

MOST_ANSWERS = 64


class Desk:
    """The engine behind its bridge, the media, and the words of the model; made inside a running loop."""

    def __init__(self, assistant: VideoAssistant, settings: ServeSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.bridge = Bridge(assistant, metrics)
        self.media = MediaDesk(settings, assistant.processor.video_processor.settings(), metrics)
        self.tokens = Tokens(assistant.processor.tokenizer)
        self.created = int(time.time())
        metrics.watch(self.bridge.thread.report, lambda: (self.media.busy, self.media.held_bytes))

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.bridge.thread.alive

    def close(self) -> None:
        """Abort what is under way; end the threads and the children."""
        self.bridge.close()
        self.media.close()

    def refuse_model(self, name: str | None) -> None:
        """Raise on a model that this server does not have.

        Raises:
            Refusal: With the name of the one it has.
        """
        if name is not None and name != self.settings.model_name:
            here = self.settings.model_name
            raise Refusal(404, f"no model {name!r} here; there is {here!r}", "model_not_found", "model")

    def chat(
        self, visit: Visit, messages: Sequence[Message], request: Sampled, wish: Wish
    ) -> AsyncGenerator[Piece]:
        """The answers to a conversation; they end with the visit.

        Raises:
            PromptError: It does not end with the user, or names too many media.
            Refusal: No such model.
        """
        self.refuse_model(request.model)
        wanted = read_media(messages, request, self.settings)
        turns = read_turns(messages)
        salt = salted(visit, request.cache_salt)
        pieces = converse(self.media, self.bridge, turns, wanted, wish, salt, visit.account)
        visit.holds.push_async_callback(pieces.aclose)
        return pieces

    async def text(
        self,
        prompt: str | Sequence[str | int | list[int]],
        wish: Wish,
        account: Account,
        salt: bytes,
    ) -> AsyncGenerator[Piece]:
        """The continuations of one text or several, given as text or as ids."""
        several = _prompts(prompt)
        if not 0 < len(several) * wish.answers <= MOST_ANSWERS:
            raise PromptError(f"{len(several) * wish.answers} answers; ask for 1 to {MOST_ANSWERS} at a time")
        prompts = [
            ModelInputs(ids=tuple(one) if isinstance(one, list) else await self.bridge.ids(one, special=True))
            for one in several
        ]
        account.prompt_tokens = sum(len(inputs.ids) for inputs in prompts)
        async with aclosing(self.bridge.answers(prompts, wish, salt)) as pieces:
            async for piece in pieces:
                account.add(piece)
                yield piece


def salted(visit: Visit, more: str | None) -> bytes:
    """What keeps this client's pages, features and media apart from other tenants'."""
    return visit.tenant + (more or "").encode()


def _prompts(given: str | Sequence[str | int | list[int]]) -> list[str | list[int]]:
    """Each text or row of ids by itself; a plain row of ids is one prompt.

    >>> _prompts("a"), _prompts([1, 2]), _prompts(["a", [1, 2]])
    (['a'], [[1, 2]], ['a', [1, 2]])
    """
    if isinstance(given, str):
        return [given]
    ids = [one for one in given if isinstance(one, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]
