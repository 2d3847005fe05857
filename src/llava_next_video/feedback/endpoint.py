"""A judge behind OpenAI's chat API, who reads a caption in place of the video."""

from __future__ import annotations

from dataclasses import dataclass

from llava_next_video.errors import ConfigError
from llava_next_video.feedback.judges import Verdict
from llava_next_video.feedback.questions import Asked
from llava_next_video.feedback.rubric import SYSTEM, VERSION, judge_prompt, read_score
from llava_next_video.judging import ChatServer, UndecidedError


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointJudge:
    """Asks a server, which should name a pinned model; `version` covers the words of the rubric."""

    server: ChatServer
    at_once: int = 8
    version: str = VERSION

    @property
    def name(self) -> str:
        """The model, without the address: it may be served elsewhere tomorrow."""
        return f"endpoint:{self.server.model}"

    def refuse(self, asked: Asked) -> None:
        """Raise where there is nothing to read in place of the video."""
        if asked.caption is None and asked.truth is None:
            raise ConfigError(
                f"{asked.place}: this judge sees no video; give the row a 'caption' (or an 'answer')"
            )

    def prompt(self, asked: Asked, answer: str) -> str:
        """The rubric, with the caption."""
        return judge_prompt(asked, answer, sees=False)

    def judge(self, asked: Asked, answer: str) -> Verdict:
        """The grade in the server's reply."""
        reply = self.server.reply(system=SYSTEM, prompt=self.prompt(asked, answer))
        score = read_score(reply)
        if score is None:
            raise UndecidedError("no score from 1 to 5 in the reply", reply)
        return Verdict(score=float(score), reply=reply)
