"""Who runs in the next step, on which pages.

There are no phases: a step computes some tokens of some requests within one budget. Requests that generate
come first with one token each; prompts share what is left in chunks; waiting requests enter as they arrived.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llava_next_video.engine.features import FeatureCache
from llava_next_video.engine.pages import PagePool, page_hashes
from llava_next_video.engine.request import UNKNOWN, FinishReason, Output, Request, State, TokenLogprob
from llava_next_video.engine.settings import EngineSettings
from llava_next_video.inputs import Medium


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Tokens `start` to `start + count` of a request, to be computed in one step."""

    request: Request
    start: int
    count: int

    @property
    def samples(self) -> bool:
        """Whether the next token can be chosen after this chunk."""
        return self.start + self.count == len(self.request.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The token that was chosen after a chunk, or why none could be."""

    id: int = -1
    logprob: TokenLogprob | None = None
    error: str | None = None


@dataclass(slots=True, kw_only=True)
class Counters:
    """What happened since the engine was made."""

    preemptions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    finished: int = 0


def shares(budget: int, wants: Sequence[int]) -> list[int]:
    """Splits a budget among wants in order of arrival: half to the oldest, the rest to whoever needs least.

    So the oldest always moves on, whatever comes after it; a small want need not wait for a large one; and
    equal wants are met one after the other, not all at the very end.

    >>> shares(100, [500, 80, 10])
    [50, 40, 10]
    >>> shares(100, [20, 500]), shares(100, [80, 80])
    ([20, 80], [80, 20])
    """
    given = [0] * len(wants)
    if len(wants) > 1:
        given[0] = min(wants[0], (budget + 1) // 2)
    left = budget - sum(given)
    for index in sorted(range(len(wants)), key=lambda index: wants[index] - given[index]):
        more = min(wants[index] - given[index], left)
        given[index] += more
        left -= more
    return given


class Scheduler:
    """The requests that wait and run, and the pages they hold."""

    def __init__(self, settings: EngineSettings, pages: PagePool, features: FeatureCache) -> None:
        self.settings = settings
        self.pages = pages
        self.features = features
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.counters = Counters()
        self._computing: dict[bytes, Request] = {}  # pages that a running request will publish

    def __iter__(self) -> Iterator[Request]:
        yield from self.running
        yield from self.waiting

    def admit(self, ready: Callable[[Medium], bool]) -> None:
        """Let waiting requests in, in order of arrival, while there is room.

        A request is passed over, without losing its place, while its pixels are not `ready`, or while another
        one computes the page that it needs next (many questions about one new video: the first computes it).
        """
        for request in list(self.waiting):
            if len(self.running) >= self.settings.max_requests:
                break
            matched = self._match(request)
            if matched is None or not self._pixels_ready(request, len(matched), ready):
                continue
            wanted = self._page_count(len(request.ids)) - len(matched)
            idle_matched = self.pages.idle_among(matched)
            spare = len(self.running)  # each of them may soon need one more page
            if wanted + idle_matched + spare > self.pages.available and self.running:
                break
            self.waiting.remove(request)
            self._start(request, matched, wanted)

    def prompt_tokens_ready(self) -> int:
        """Tokens of prompts whose media are encoded, and which are still to be computed."""
        return sum(r.remaining for r in self.running if r.state is State.RUNNING and not r.decoding)

    def chunks(self) -> list[Chunk]:
        """What to compute now; may send the newest requests back to wait when pages run out."""
        chunks = []
        for request in list(self.running):
            generates = request.state is State.RUNNING and request.decoding and not request.full
            if generates and self._grow(request):
                chunks.append(Chunk(request=request, start=request.computed, count=1))
        prompts = [r for r in self.running if r.state is State.RUNNING and not r.decoding]
        given = shares(self.settings.token_budget - len(chunks), [request.remaining for request in prompts])
        for request, count in zip(prompts, given, strict=True):
            if count:
                chunks.append(Chunk(request=request, start=request.computed, count=count))
        return chunks

    def book(self, chunks: Sequence[Chunk]) -> None:
        """Note what a step that has begun computes; a token that it chooses is unknown for now."""
        for chunk in chunks:
            request = chunk.request
            if chunk.samples:
                request.ids.append(UNKNOWN)
                request.unknown += 1
            request.computed += chunk.count
            self.counters.computed_tokens += chunk.count
            self._publish(request)
            for key in [key for key in request.features if all(m.key != key for m in request.needed_media())]:
                del request.features[key]
                self.features.drop(key, request.id_and_index)

    def settle(self, chunks: Sequence[Chunk], sampled: Sequence[Sampled | None]) -> list[Output]:
        """Take in the tokens that a booked step chose; gives an output for each request that has a new one.

        Requests that ended since are passed over.
        """
        now = time.monotonic()
        return [
            self._learn(chunk.request, choice, now)
            for chunk, choice in zip(chunks, sampled, strict=True)
            if choice is not None and chunk.request.state is not State.FINISHED
        ]

    def end(self, request: Request, reason: FinishReason, error: str | None = None) -> Output:
        """Take a request out at any stage and free what it holds."""
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._free(request)
        del request.ids[request.known :]
        request.unknown = 0
        request.state, request.finish, request.error = State.FINISHED, reason, error
        request.timings.finished_s = time.monotonic()
        self.counters.finished += 1
        return request.output()

    def _learn(self, request: Request, choice: Sampled, now: float) -> Output:
        timings = request.timings
        if timings.first_token_s is None:
            timings.first_token_s = now
        if choice.error is not None:
            return self.end(request, "error", choice.error)
        if choice.id in request.end_ids:
            return self.end(request, "stop")
        request.ids[request.known] = choice.id
        request.unknown -= 1
        self.counters.generated_tokens += 1
        if request.known - request.prompt_tokens >= request.options.max_new_tokens:
            self.end(request, "length")
        return request.output((choice.id,), () if choice.logprob is None else (choice.logprob,))

    def _match(self, request: Request) -> list[int] | None:
        """Pages that are there already; None while the next one is being computed by another request."""
        if not self.settings.share_prefixes:
            return []
        self._hash(request)
        usable = request.hashes[
            : (len(request.ids) - 1) // self.pages.page_tokens
        ]  # the last token is computed
        matched = self.pages.match(usable)
        if len(matched) < len(usable) and usable[len(matched)] in self._computing:
            return None
        return matched

    def _pixels_ready(self, request: Request, pages: int, ready: Callable[[Medium], bool]) -> bool:
        covered = pages * self.pages.page_tokens
        return all(
            medium.key in self.features or ready(medium)
            for medium in request.media
            if medium.start + medium.tokens > covered
        )

    def _start(self, request: Request, matched: list[int], wanted: int) -> None:
        self.pages.hold(matched)
        still_to_come = request.options.max_new_tokens - len(request.answer)
        growth = self._page_count(len(request.ids) + still_to_come) - self._page_count(len(request.ids))
        after = matched[-1] if matched else None
        request.pages = matched + self.pages.take(
            wanted, owner=request.id_and_index, after=after, growth=growth
        )
        request.published = len(matched)
        request.computed = len(matched) * self.pages.page_tokens
        if request.cached_tokens is None:
            request.cached_tokens = request.computed
            request.timings.started_s = time.monotonic()
            self.counters.prompt_tokens += request.prompt_tokens
            self.counters.cached_tokens += request.computed
        for digest in request.hashes[len(matched) :]:
            self._computing.setdefault(digest, request)
        request.state = State.ENCODING if request.needed_media() else State.RUNNING
        self.running.append(request)

    def _grow(self, request: Request) -> bool:
        """A page for the newest token, if need be at the cost of the newest request, which may be itself."""
        missing = self._page_count(len(request.ids)) - len(request.pages)
        while missing > self.pages.available:
            victim = self.running[-1]
            self._preempt(victim)
            if victim is request:
                return False
        if missing:
            request.pages += self.pages.take(missing, owner=request.id_and_index, after=request.pages[-1])
        return True

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self._free(request)
        request.state = State.WAITING
        self.waiting.appendleft(request)
        self.counters.preemptions += 1

    def _free(self, request: Request) -> None:
        self.pages.release(request.pages, owner=request.id_and_index)
        request.pages, request.computed, request.published = [], 0, 0
        for key in request.features:
            self.features.drop(key, request.id_and_index)
        request.features = {}
        self._computing = {k: owner for k, owner in self._computing.items() if owner is not request}

    def _publish(self, request: Request) -> None:
        if not self.settings.share_prefixes:
            return
        whole = min(request.computed, request.known) // self.pages.page_tokens
        if whole > request.published:
            self._hash(request)
        for index in range(request.published, whole):
            self.pages.publish(request.pages[index], request.hashes[index])
            if self._computing.get(request.hashes[index]) is request:
                del self._computing[request.hashes[index]]
        request.published = max(whole, request.published)

    def _hash(self, request: Request) -> None:
        request.hashes = page_hashes(
            request.ids[: request.known],
            request.media,
            page_tokens=self.pages.page_tokens,
            salt=request.salt,
            known=request.hashes,
        )

    def _page_count(self, tokens: int) -> int:
        return -(-tokens // self.pages.page_tokens)
