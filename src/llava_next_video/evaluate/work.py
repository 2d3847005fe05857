"""An evaluation made ready: items, videos, words, and what it all depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from llava_next_video.errors import ConfigError, DataError, LlavaNextVideoError
from llava_next_video.evaluate import manifest as frozen
from llava_next_video.evaluate.benchmark import SUBTITLES, Benchmark, Protocol
from llava_next_video.evaluate.benchmarks import benchmark_named, protocol_named
from llava_next_video.evaluate.items import Item, find_videos, read_table
from llava_next_video.evaluate.judges import Judge
from llava_next_video.evaluate.manifest import Manifest
from llava_next_video.evaluate.parsers import refuse_parser
from llava_next_video.evaluate.subtitles import NONE, read_subtitles, spoken, subtitle_file
from llava_next_video.media import Limits, Sampling, read_clip
from llava_next_video.messages import Turn, Video, user

NAMED = 3
"""So many missing videos are named in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked, about which videos, in which words.

    Attributes:
        items: Those with a video.
        videos: Where each is, by the name that items give it.
        missing: Names of videos that are nowhere.
        left_out: How many items ask about these.
        subtitles: Folder of SRT files by the video's name; None to ask without.
    """

    benchmark: Benchmark
    protocol: Protocol
    files: tuple[Path, ...]
    items: tuple[Item, ...]
    videos: Mapping[str, Path]
    missing: tuple[str, ...]
    left_out: int
    sampling: Sampling
    subtitles: Path | None = None

    def prompts(self, item: Item) -> tuple[str, ...]:
        """What is asked about an item, without the lines of its subtitles."""
        write = self.protocol.prompt
        if self.subtitles is not None:
            assert self.protocol.prompt_with_subtitles is not None
            write = self.protocol.prompt_with_subtitles
        return tuple(write(item, question) for question in item.questions)

    def refuse_judge(self, judge: Judge | None) -> None:
        """Raise where a judge is missing, or would not be asked.

        Raises:
            ConfigError: One of the two.
        """
        if self.protocol.rubrics and judge is None:
            name = self.benchmark.name
            raise ConfigError(f"{name} is marked by a judge; give --judge URL --judge-model NAME, or world")
        if judge is not None and not self.protocol.rubrics:
            raise ConfigError(f"{self.benchmark.name} is marked by a parser; leave --judge out")

    def conversation(self, item: Item, prompt: str, limits: Limits) -> tuple[Turn, ...]:
        """The user's turn: the video, then the words."""
        video = self.videos[item.video]
        if self.subtitles is None:
            return (user(prompt, [Video(source=str(video))]),)
        try:
            clip = read_clip(str(video), self.sampling, limits)
        except LlavaNextVideoError:  # who answers meets it again, and says so in the place of the answer
            return (user(prompt, [Video(source=str(video))]),)
        path = subtitle_file(self.subtitles, item.video)
        told = spoken(read_subtitles(path), clip, self.protocol.subtitle_frames) if path.exists() else NONE
        return (user(SUBTITLES.format(told) + prompt, [Video(source=clip)]),)

    @cached_property
    def manifest(self) -> Manifest:
        """What the questions depend on; model and judge are added by who knows them."""
        told = {key: list(value) for key, value in (("missing videos", self.missing),) if value}
        return {
            "benchmark": self.benchmark.name,
            "files": frozen.of_files(self.files),
            "items": len(self.items),
            **told,
            "protocol": {
                "name": self.protocol.name,
                "source": self.protocol.source,
                "parser": self.protocol.parser or "a judge",
                "first prompt": self.prompts(self.items[0])[0],
                "prompts sha256": frozen.words_hash(
                    prompt for item in self.items for prompt in self.prompts(item)
                ),
                "subtitles": self._subtitles(),
                "max_new_tokens": self.protocol.max_new_tokens,
                "stop": list(self.protocol.stop),
                "temperature": 0,
            },
            "sampler": frozen.of_sampling(self.sampling),
        }

    def _subtitles(self) -> Mapping[str, str] | None:
        if self.subtitles is None:
            return None
        frames = self.protocol.subtitle_frames
        told = "of the frames seen" if frames is None else f"of {frames} evenly spread frames"
        return {"which": told, "sha256": frozen.folder_hash(self.subtitles, (".srt",))}


def prepare(
    name: str,
    files: Sequence[Path],
    videos: Path,
    *,
    protocol: str | None = None,
    parser: str | None = None,
    subtitles: Path | None = None,
    sampling: Sampling | None = None,
    limit: int | None = None,
    skip_missing: bool = False,
) -> Work:
    """Read a benchmark and find its videos, before any model is loaded.

    Args:
        name: One of `benchmarks.BENCHMARKS`.
        files: Its tables.
        videos: Folder that the names of videos are relative to.
        protocol: How to ask and mark; the benchmark's first by default.
        parser: Another parser of letters than the protocol's.
        subtitles: Folder of SRT files, to ask with subtitles.
        sampling: Which moments to look at; 8 frames by default.
        limit: Only the first so many items.
        skip_missing: Leave out the items whose videos are missing; the report and the manifest name them.

    Raises:
        ConfigError: An unknown benchmark, protocol or parser, or settings that do not go together.
        DataError: A row or subtitles that cannot be read, two items with one id, or missing videos.
    """
    benchmark = benchmark_named(name)
    chosen = protocol_named(benchmark, protocol)
    if parser is not None:
        refuse_parser(parser, marked_by_judge=chosen.parser is None)
        chosen = replace(chosen, parser=parser)
    if subtitles is not None and chosen.prompt_with_subtitles is None:
        raise ConfigError(f"{name} with protocol {chosen.name} has no subtitles; leave --subtitles out")
    if subtitles is not None and not subtitles.is_dir():
        raise ConfigError(f"{subtitles}: no folder of subtitles; expected one .srt file a video")
    items = _read(benchmark, files)[:limit]
    found, missing = find_videos(items, videos)
    if missing and not skip_missing:
        named = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise DataError(
            f"{videos}: {len(missing):,} of {len(missing) + len(found):,} videos are missing ({named}); "
            "add them, or leave their items out with --skip-missing"
        )
    kept = tuple(item for item in items if item.video in found)
    if not kept:
        raise DataError(
            f"{videos}: none of the {len(missing):,} videos is there; name their folder with --videos"
        )
    if subtitles is not None:
        for path in (subtitle_file(subtitles, name) for name in found):
            if path.exists():
                read_subtitles(path)
    return Work(
        benchmark=benchmark,
        protocol=chosen,
        files=tuple(files),
        items=kept,
        videos=found,
        missing=tuple(missing),
        left_out=len(items) - len(kept),
        sampling=sampling or Sampling(),
        subtitles=subtitles,
    )


def _read(benchmark: Benchmark, files: Sequence[Path]) -> list[Item]:
    items: dict[str, Item] = {}
    for path in files:
        for row in read_table(path):
            item = benchmark.read(row)
            if item.id in items:
                raise DataError(f"{row.place}: a second item {item.id!r}; each needs its own id")
            items[item.id] = item
    if not items:
        raise DataError(f"{', '.join(map(str, files))}: no rows; {benchmark.name} has {benchmark.rows}")
    return list(items.values())
