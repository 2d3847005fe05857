"""Who judges an answer: the toy world's truth, or the model itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llava_next_video.assistant import VideoAssistant
from llava_next_video.errors import ConfigError
from llava_next_video.feedback.questions import Asked, media_of
from llava_next_video.feedback.rubric import HIGHEST, LOWEST, VERSION, judge_prompt, read_score
from llava_next_video.judging import UndecidedError
from llava_next_video.world import truth_share

OTHERWISE_SAID = 4.5
"""What the world's judge gives at most to an answer that is not the truth to the letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A score from 1 to 5, and what the judge said."""

    score: float
    reply: str


@runtime_checkable
class Judge(Protocol):
    """Scores one answer at a time; `at_once` may be asked in parallel."""

    @property
    def name(self) -> str:
        """Who judges, in words that are stored with every verdict."""
        ...

    @property
    def version(self) -> str:
        """The rubric's version, stored likewise."""
        ...

    @property
    def at_once(self) -> int:
        """How many answers may be judged at the same time."""
        ...

    def refuse(self, asked: Asked) -> None:
        """Raise where it cannot judge answers to such a question.

        Raises:
            ConfigError: It lacks what it judges by.
        """
        ...

    def prompt(self, asked: Asked, answer: str) -> str:
        """What it is asked; empty where it needs no words."""
        ...

    def judge(self, asked: Asked, answer: str) -> Verdict:
        """The verdict on an answer.

        Raises:
            UndecidedError: No score came of it.
            ConfigError: None ever will.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldJudge:
    """The truth of the toy world: the share of facts that are right, or an answer right to the letter.

    A caption with every fact in another order than the world's (left to right), or in other words, comes
    second to the true one.
    """

    name: str = "world"
    version: str = "facts-2"
    at_once: int = 1

    def refuse(self, asked: Asked) -> None:
        """Raise where the truth is not known."""
        if asked.truth is None:
            raise ConfigError(f"{asked.place}: the world's judge needs the true answer; give 'answer'")

    def prompt(self, asked: Asked, answer: str) -> str:
        """Nothing is asked."""
        return ""

    def judge(self, asked: Asked, answer: str) -> Verdict:
        """5 for the truth to the letter, 1 for nothing of it."""
        truth = asked.truth or ""
        score = LOWEST + (HIGHEST - LOWEST) * truth_share(answer, truth)
        return Verdict(
            score=score if answer.strip() == truth.strip() else min(score, OTHERWISE_SAID), reply=""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnJudge:
    """A model that looks at the media and grades answers, its own among them."""

    assistant: VideoAssistant
    model: str
    frames: int = 8
    max_new_tokens: int = 128
    version: str = VERSION
    at_once: int = 1

    @property
    def name(self) -> str:
        """The model, as a judge."""
        return f"self:{self.model}"

    def refuse(self, asked: Asked) -> None:
        """It judges anything."""

    def prompt(self, asked: Asked, answer: str) -> str:
        """The rubric, behind the media."""
        return judge_prompt(asked, answer, sees=True)

    def judge(self, asked: Asked, answer: str) -> Verdict:
        """What the model says, greedily."""
        told = self.assistant.ask(
            media_of(asked),
            self.prompt(asked, answer),
            frames=self.frames,
            max_new_tokens=self.max_new_tokens,
        )
        score = read_score(told.text)
        if score is None:
            raise UndecidedError("no score from 1 to 5 in the reply", told.text)
        return Verdict(score=float(score), reply=told.text)
