"""Text out of ids, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turns ids into text as they arrive, and cuts before the stop string that is complete first.

    Joined, the pieces are what decoding all ids at once gives, without special tokens and without white space
    at both ends. A piece is held back while it may still change: half a character, the beginning of a stop
    string, or white space that may turn out to be the last.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        """Without `stop` strings nothing is cut."""
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        # Ids before `_settled` are decoded for good; those from `_context` on give them their spacing.
        self._context = 0
        self._settled = 0
        self._held = ""
        self._begun = False
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now; empty after a stop string."""
        if self.stopped:
            return ""
        self._ids.append(token)
        before = self._decode(self._context, self._settled)
        now = self._decode(self._context, len(self._ids))
        if now.endswith(UNFINISHED):
            return ""
        self._held += now[len(before) :]
        self._context, self._settled = self._settled, len(self._ids)
        return self._release(last=False)

    def finish(self) -> str:
        """The text that was held back, once no more ids will come."""
        if self.stopped:
            return ""
        before = self._decode(self._context, self._settled)
        self._held += self._decode(self._context, len(self._ids))[len(before) :]
        return self._release(last=True)

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)

    def _release(self, *, last: bool) -> str:
        if not self._begun:
            self._held = self._held.lstrip()
            self._begun = bool(self._held)
        found = [(at + len(one), at) for one in self._stop if (at := self._held.find(one)) >= 0]
        if found:
            self.stopped = True
            _, start = min(found)
            return self._held[:start].rstrip()
        sure = len(self._held) if last else len(self._held) - self._uncertain()
        piece = self._held[:sure].rstrip()
        self._held = self._held[len(piece) :]
        return piece

    def _uncertain(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        return max(
            (
                length
                for one in self._stop
                for length in range(1, min(len(one), len(self._held) + 1))
                if self._held.endswith(one[:length])
            ),
            default=0,
        )
