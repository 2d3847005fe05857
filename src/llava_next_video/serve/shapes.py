"""Answers in the words of the chat and completions APIs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from llava_next_video.engine import TokenLogprob
from llava_next_video.serve.account import Account
from llava_next_video.serve.bridge import Piece
from llava_next_video.serve.events import DONE, event

Json = dict[str, object]


@dataclass(slots=True)
class Whole:
    """One answer, put together."""

    text: str = ""
    finish: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        self.text += piece.text
        self.finish = piece.finish or self.finish
        self.logprobs.extend(piece.logprobs)


async def gathered(pieces: AsyncGenerator[Piece]) -> list[Whole]:
    """All answers, in the order of their index."""
    answers: dict[int, Whole] = {}
    async for piece in pieces:
        answers.setdefault(piece.index, Whole()).add(piece)
    return [answers[index] for index in sorted(answers)]


class Tokens:
    """Single tokens as text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Tokens are spelled as they stand inside a text, with the space before them."""
        self._tokenizer = tokenizer
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"]
        self.text: Callable[[int], str] = lru_cache(65536)(self._text)

    def _text(self, token: int) -> str:
        alone = self._tokenizer.decode(self._before)
        return self._tokenizer.decode([*self._before, token]).removeprefix(alone)

    def chat(self, logprobs: Sequence[TokenLogprob]) -> Json:
        """As the chat API tells them."""
        return {
            "content": [
                {**self._one(said.id, said.logprob), "top_logprobs": [self._one(*pair) for pair in said.top]}
                for said in logprobs
            ]
        }

    def completion(self, logprobs: Sequence[TokenLogprob], offset: int = 0) -> Json:
        """As the completions API tells them; `offset` is how much text came before."""
        texts = [self.text(said.id) for said in logprobs]
        offsets = [offset + sum(map(len, texts[:number])) for number in range(len(texts))]
        return {
            "tokens": texts,
            "token_logprobs": [said.logprob for said in logprobs],
            "top_logprobs": [{self.text(id): value for id, value in said.top} for said in logprobs],
            "text_offset": offsets,
        }

    def _one(self, id: int, logprob: float) -> Json:
        text = self.text(id)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def chat_head(account: Account, kind: str) -> Json:
    """What every object of a chat begins with."""
    return {
        "id": f"chatcmpl-{account.id}",
        "object": kind,
        "created": account.created,
        "model": account.model,
    }


async def chat_whole(
    pieces: AsyncGenerator[Piece], account: Account, tokens: Tokens, *, logprobs: bool
) -> Json:
    """A chat completion."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text},
            "finish_reason": answer.finish,
            "logprobs": tokens.chat(answer.logprobs) if logprobs else None,
        }
        for index, answer in enumerate(await gathered(pieces))
    ]
    head = chat_head(account, "chat.completion")
    return {**head, "choices": choices, "usage": account.usage, "media": account.media}


async def chat_events(
    pieces: AsyncGenerator[Piece], account: Account, tokens: Tokens, *, logprobs: bool, usage: bool
) -> AsyncGenerator[str]:
    """The chunks of a chat completion; the first also says what the model saw."""
    head = chat_head(account, "chat.completion.chunk")
    seen: set[int] = set()

    def chunk(piece: Piece, delta: Json) -> Json:
        told = tokens.chat(piece.logprobs) if logprobs and piece.logprobs else None
        choice = {"index": piece.index, "delta": delta, "finish_reason": piece.finish, "logprobs": told}
        return {**head, "choices": [choice]}

    async for piece in pieces:
        delta: Json = {} if piece.index in seen else {"role": "assistant", "content": ""}
        first = {} if seen else {"media": account.media}
        seen.add(piece.index)
        if piece.text:
            delta["content"] = piece.text
        if delta or piece.finish or (logprobs and piece.logprobs):
            yield event({**chunk(piece, delta), **first})
    if usage:
        yield event({**head, "choices": [], "usage": account.usage})
    yield DONE


def text_head(account: Account) -> Json:
    """What every object of a completion begins with."""
    return {
        "id": f"cmpl-{account.id}",
        "object": "text_completion",
        "created": account.created,
        "model": account.model,
    }


async def text_whole(
    pieces: AsyncGenerator[Piece], account: Account, tokens: Tokens, *, logprobs: bool
) -> Json:
    """A text completion."""
    choices = [
        {
            "index": index,
            "text": answer.text,
            "finish_reason": answer.finish,
            "logprobs": tokens.completion(answer.logprobs) if logprobs else None,
        }
        for index, answer in enumerate(await gathered(pieces))
    ]
    return {**text_head(account), "choices": choices, "usage": account.usage}


async def text_events(
    pieces: AsyncGenerator[Piece], account: Account, tokens: Tokens, *, logprobs: bool, usage: bool
) -> AsyncGenerator[str]:
    """The chunks of a text completion."""
    head: Mapping[str, object] = text_head(account)
    written: dict[int, int] = {}
    async for piece in pieces:
        before = written.get(piece.index, 0)
        written[piece.index] = before + sum(len(tokens.text(said.id)) for said in piece.logprobs)
        if piece.text or piece.finish or (logprobs and piece.logprobs):
            told = tokens.completion(piece.logprobs, before) if logprobs and piece.logprobs else None
            choice = {
                "index": piece.index,
                "text": piece.text,
                "finish_reason": piece.finish,
                "logprobs": told,
            }
            yield event({**head, "choices": [choice]})
    if usage:
        yield event({**head, "choices": [], "usage": account.usage})
    yield DONE
