"""Who marks open answers: a model behind a chat API, or the toy world's truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from llava_next_video.evaluate.items import Item
from llava_next_video.evaluate.rubrics import HIGHEST, Grade, Rubric
from llava_next_video.judging import ChatServer, UndecidedError
from llava_next_video.world import truth_share


@runtime_checkable
class Judge(Protocol):
    """Grades the answers to one item at a time; `at_once` may be asked in parallel."""

    @property
    def name(self) -> str:
        """Who judges, in words that stand in the manifest."""
        ...

    @property
    def at_once(self) -> int:
        """How many items may be graded at the same time."""
        ...

    def grade(self, rubric: Rubric, item: Item, answers: Sequence[str]) -> Grade:
        """The grade of the answers to the questions of an item.

        Raises:
            UndecidedError: No grade came of it; it may be asked again.
            ConfigError: None ever will.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerJudge:
    """A model that reads question, truth and answer; name a pinned one, or the scores move with it."""

    server: ChatServer
    at_once: int = 8

    @property
    def name(self) -> str:
        """The model, without the address: it may be served elsewhere tomorrow."""
        return f"endpoint:{self.server.model}"

    def grade(self, rubric: Rubric, item: Item, answers: Sequence[str]) -> Grade:
        """The grade in the server's reply."""
        reply = self.server.reply(system=rubric.system, prompt=rubric.prompt(item, answers))
        grade = rubric.read(reply)
        if grade is None:
            raise UndecidedError(f"no grade from 0 to {HIGHEST} in the reply", reply)
        return grade


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldJudge:
    """The toy world's truth: the share of its facts that are said, or an answer right to the letter."""

    name: str = "world"
    at_once: int = 1

    def grade(self, rubric: Rubric, item: Item, answers: Sequence[str]) -> Grade:
        """5 for the whole truth and nothing else, of several answers the mean; the words do not matter."""
        share = sum(truth_share(answer.strip(), item.truth) for answer in answers) / len(answers)
        return Grade(score=HIGHEST * share, right=share == 1 if rubric.decides else None)


def described(judge: Judge, rubrics: Sequence[Rubric]) -> Mapping[str, object]:
    """A judge as it stands in a manifest: name, and the version of each rubric's words."""
    return {"name": judge.name, "rubrics": {rubric.name: rubric.version for rubric in rubrics}}
