"""Look at all samples before a run does: do the media open, do the tokens fit?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from llava_next_video.data.dataset import media_key
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import TextEncoder, expanded_length
from llava_next_video.data.measure import Layouts, visual_tokens
from llava_next_video.data.record import Preference, Record, Sample
from llava_next_video.errors import ConfigError, DataError, MediaError
from llava_next_video.media import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run over the samples would meet.

    Attributes:
        samples: Rows, good or bad.
        text_only: Good rows without any medium.
        media: Different media that were opened.
        tokens: Tokens of all good samples, `visual` of them visual.
        longest: Tokens of the longest good sample.
        problems: One sentence for each sample that would be dropped, with its file and line.
    """

    samples: int
    text_only: int
    media: int
    tokens: int
    visual: int
    longest: int
    context: int
    problems: tuple[str, ...]

    @property
    def text(self) -> str:
        """The report as people read it: totals, then a line a problem."""
        good = self.samples - len(self.problems)
        mean = self.tokens / good if good else 0.0
        totals = (
            f"{self.samples:,} samples, {self.media:,} media, {self.text_only:,} samples without media\n"
            f"{self.tokens:,} tokens ({self.visual:,} visual), {mean:,.0f} a sample, at most "
            f"{self.longest:,} of the {self.context:,} that fit\n"
            f"{len(self.problems):,} samples would be dropped"
        )
        return "\n".join([totals, *self.problems])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What one sample needs, or what is wrong with it."""

    tokens: int = 0
    visual: int = 0
    problem: str | None = None


class _Looker:
    """Opens each medium once, with a decoder per thread."""

    def __init__(self, layouts: Layouts, sampling: Sampling, timeout_s: float) -> None:
        self.layouts = layouts
        self.sampling = sampling
        self.timeout_s = timeout_s
        self.known: dict[object, list[int] | MediaError] = {}
        self.decoders: list[Decoder] = []
        self._own = threading.local()

    def visual(self, sample: Sample) -> list[int]:
        """Visual tokens of each medium of a sample."""
        key = media_key(sample.media)
        if key not in self.known:
            try:
                self.known[key] = [
                    visual_tokens(self._decoder().read(medium, self.sampling), self.layouts)
                    for medium in sample.media
                ]
            except MediaError as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, MediaError):
            raise MediaError(str(found))
        return found

    def _decoder(self) -> Decoder:
        if not hasattr(self._own, "decoder"):
            self._own.decoder = Decoder(timeout_s=self.timeout_s)
            self.decoders.append(self._own.decoder)
        decoder: Decoder = self._own.decoder
        return decoder


def check_samples(
    samples: Iterable[Sample | DataError],
    *,
    encoder: TextEncoder,
    layouts: Layouts,
    sampling: Sampling,
    context: int,
    timeout_s: float = 60.0,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Open every medium and count every token; nothing is changed and nothing stops at the first problem.

    `progress` is told how many samples are done.
    """
    looker = _Looker(layouts, sampling, timeout_s)

    def look(sample: Sample | DataError) -> _Looked:
        if isinstance(sample, DataError):
            return _Looked(problem=str(sample))
        return _look(sample, looker, encoder, context)

    looked: list[_Looked] = []
    media: set[object] = set()
    without = 0
    try:
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for sample, result in _in_step(pool, look, samples, ahead=4 * workers):
                looked.append(result)
                if not isinstance(sample, DataError):
                    media.update(media_key((medium,)) for medium in sample.media)
                    without += not sample.media and result.problem is None
                progress(len(looked))
    finally:
        for decoder in looker.decoders:
            decoder.close()
    good = [result for result in looked if result.problem is None]
    return Report(
        samples=len(looked),
        text_only=without,
        media=len(media),
        tokens=sum(result.tokens for result in good),
        visual=sum(result.visual for result in good),
        longest=max((result.tokens for result in good), default=0),
        context=context,
        problems=tuple(result.problem for result in looked if result.problem is not None),
    )


def _look(sample: Sample, looker: _Looker, encoder: TextEncoder, context: int) -> _Looked:
    try:
        visual = looker.visual(sample)
        tokens = max(expanded_length(encoder.encode(record), visual) for record in _conversations(sample))
    except (MediaError, DataError, ConfigError) as error:
        told = str(error)
        return _Looked(problem=told if told.startswith(str(sample.place)) else f"{sample.place}: {told}")
    if tokens > context:
        return _Looked(
            problem=f"{sample.place}: {tokens} tokens ({sum(visual)} visual), and {context} fit; "
            "use fewer frames or a shorter text"
        )
    return _Looked(tokens=tokens, visual=sum(visual))


def _conversations(sample: Sample) -> list[Record]:
    """The sample as whole conversations: itself, or its prompt with either answer."""
    if isinstance(sample, Preference):
        return [
            Record(id=sample.id, turns=(*sample.turns, answer), place=sample.place)
            for answer in (sample.chosen, sample.rejected)
        ]
    return [sample]


def _in_step(
    pool: ThreadPoolExecutor,
    look: Callable[[Sample | DataError], _Looked],
    samples: Iterable[Sample | DataError],
    ahead: int,
) -> Iterator[tuple[Sample | DataError, _Looked]]:
    """Samples with their results, in order, never more than `ahead` of them in flight."""
    waiting = []
    for sample in samples:
        waiting.append((sample, pool.submit(look, sample)))
        if len(waiting) >= ahead:
            first, result = waiting.pop(0)
            yield first, result.result()
    for first, result in waiting:
        yield first, result.result()
