"""A question and its media to a prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import cast

from llava_next_video.assistant.answers import Prompt, Seen
from llava_next_video.errors import CapacityError, ConfigError, PromptError
from llava_next_video.inputs import ModelInputs
from llava_next_video.long_video import ClipLayout, RopeScaling
from llava_next_video.media import (
    Clip,
    Limits,
    Picture,
    Sampling,
    Source,
    read,
    read_clip,
    read_image,
    thinned,
)
from llava_next_video.messages import Image, Turn, Video, read_messages, user
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.processing.budget import most_frames
from llava_next_video.processing.times import with_times

Medium = Source | Image | Video | Clip | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads media and makes prompts; may be used by several threads.

    Attributes:
        frames: Which moments of clips to look at, or how many; None is 8, evenly spread, and takes a `Clip`
            with whatever frames it has.
        max_visual_tokens: Visual tokens of a prompt at most; clips show fewer frames, so that it holds.
        rope: How positions are stretched; None: as the checkpoint says.
        layout: How the frames of clips become visual tokens; None: as the checkpoint does it.
        time_instruction: Whether the times of the frames are told behind each clip.
    """

    processor: LlavaNextVideoProcessor
    limits: Limits
    frames: Sampling | int | None
    max_visual_tokens: int | None = None
    rope: RopeScaling | None = None
    layout: ClipLayout | None = None
    time_instruction: bool = False

    def __post_init__(self) -> None:
        if self.max_visual_tokens is not None and self.max_visual_tokens < 1:
            raise ConfigError(f"max_visual_tokens is {self.max_visual_tokens}; expected at least 1, or None")

    def asked(self, media: Medium | Sequence[Medium], question: object) -> Prompt:
        """A question about one medium or several; what a source holds decides what it is.

        Raises:
            PromptError: The question is no text.
        """
        started_s = time.perf_counter()
        if not isinstance(question, str):
            raise PromptError(f"the question is {question!r}; expected text such as 'What moves?'")
        several = media if isinstance(media, list | tuple) else [media]
        parts = [self._as_part(cast(Medium, one)) for one in several]
        return self._prompt((user(question, parts),), started_s)

    def asked_pair(self, pair: object, place: str) -> Prompt:
        """A question that came as one of many: its media and its text.

        Raises:
            PromptError: It is no pair; `place` says which one.
        """
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise PromptError(
                f"{place} is {_described(pair)}; expected a pair of media and text such as "
                "('clip.mp4', 'What moves?')"
            )
        return self.asked(cast(Medium, pair[0]), pair[1])

    def chatted(self, messages: object) -> Prompt:
        """A conversation that waits for the assistant's turn.

        Raises:
            PromptError: The messages cannot be read, or the last one is not the user's.
        """
        return self._prompt(read_messages(messages, strict=True), time.perf_counter())

    def _prompt(self, turns: Sequence[Turn], started_s: float) -> Prompt:
        if turns[-1].role != "user":
            raise PromptError(f"the last message is the {turns[-1].role}'s; end with a user's message")
        seen = tuple(self._see(part) for turn in turns for part in turn.media)
        inputs = self._prepared(turns, seen)
        if self.max_visual_tokens is not None and inputs.visual_tokens > self.max_visual_tokens:
            seen = self._within(self.max_visual_tokens, turns, seen, inputs)
            inputs = self._prepared(turns, seen)
        return Prompt(inputs=inputs, seen=seen, read_s=time.perf_counter() - started_s)

    def _prepared(self, turns: Sequence[Turn], seen: Sequence[Seen]) -> ModelInputs:
        told = with_times(turns, seen) if self.time_instruction else turns
        inputs = self.processor.prepare(told, seen, add_generation_prompt=True, layout=self.layout)
        return replace(inputs, rope=self.rope)

    def _within(
        self, budget: int, turns: Sequence[Turn], seen: Sequence[Seen], inputs: ModelInputs
    ) -> tuple[Seen, ...]:
        """The media with as many frames a clip as the budget allows."""
        clips = [one for one in seen if isinstance(one, Clip)]
        of_pictures = sum(medium.tokens for medium in inputs.media if medium.kind == "image")
        frames = most_frames(clips, budget - of_pictures, self.processor, self.layout)
        if not frames:
            least = tuple(thinned(one, 1) if isinstance(one, Clip) else one for one in seen)
            needed = self._prepared(turns, least).visual_tokens
            raise CapacityError(
                f"one frame of each clip ({len(clips)}) and the pictures ({len(seen) - len(clips)}, "
                f"{of_pictures} tokens) need more than max_visual_tokens={budget}; {needed} would do"
            )
        return tuple(thinned(one, frames) if isinstance(one, Clip) else one for one in seen)

    def _as_part(self, one: Medium) -> Image | Video:
        if isinstance(one, Image | Video):
            return one
        seen = one if isinstance(one, Clip | Picture) else read(one, self._sampling(), self.limits)
        return Video(source=seen) if isinstance(seen, Clip) else Image(source=seen)

    def _see(self, part: Image | Video) -> Seen:
        if part.source is None:
            kind = "video" if isinstance(part, Video) else "image"
            raise PromptError(
                f'a message names its {kind} but gives none; write the part as {{"type": "{kind}", '
                f'"path": ...}}, or "{kind}": ... beside the "value" of a LLaVA message'
            )
        if isinstance(part.source, Clip):
            return self._as_wanted(part.source)
        if isinstance(part.source, Picture):
            return part.source
        source = cast(Source, part.source)  # media refuses, by name, what it cannot read
        if isinstance(part, Video):
            return read_clip(source, self._sampling(), self.limits)
        return read_image(source, self.limits)

    def _as_wanted(self, clip: Clip) -> Clip:
        if self.frames is not None and clip.sampling != self._sampling():
            raise ConfigError(
                f"{clip.name}: this clip was read with {clip.sampling}, and {self._sampling()} is asked for; "
                "give its source, or leave frames out"
            )
        return clip

    def _sampling(self) -> Sampling:
        if isinstance(self.frames, Sampling):
            return self.frames
        return Sampling() if self.frames is None else Sampling(frames=self.frames)


def _described(given: object) -> str:
    """A value short enough for a sentence."""
    match given:
        case Mapping():
            return f"a mapping with {', '.join(map(str, given)) or 'no keys'}"
        case tuple() | list():
            return f"a {type(given).__name__} of {len(given)}"
        case str() | PurePath():
            return repr(str(given))
    return f"of type {type(given).__name__}"
