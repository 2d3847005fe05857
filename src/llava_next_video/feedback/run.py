"""A feedback run: sample answers, have them judged, write the pairs; stop and go on anywhere.

The output folder holds `answers.jsonl` and `verdicts.jsonl`, which are only added to and never computed
twice, and `pairs.jsonl`, which is written anew from them at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llava_next_video.assistant import VideoAssistant
from llava_next_video.data.files import Spelling, write_samples
from llava_next_video.data.record import Preference
from llava_next_video.errors import ConfigError, LlavaNextVideoError
from llava_next_video.feedback.judges import Judge
from llava_next_video.feedback.pairing import Rule, choose
from llava_next_video.feedback.plan import (
    ANSWERS,
    VERDICTS,
    Sampled,
    said_before,
    scores_before,
    verdict_key,
)
from llava_next_video.feedback.questions import Asked
from llava_next_video.judging import Ledger, UndecidedError, decide_each
from llava_next_video.messages import Text, Turn

PAIRS = "pairs.jsonl"
ATTEMPTS = 3
FLAGS = {"max_new_tokens": "--max-tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a run.

    Attributes:
        unanswered: Questions whose media could not be read.
        verdicts: Answers with a score.
        undecided: Answers without one after all attempts; they are in no pair.
        retried: Attempts beyond the first of each answer.
        unpaired: Questions with answers whose scores tell none apart, or are missing.
    """

    questions: int
    unanswered: int
    verdicts: int
    undecided: int
    retried: int
    unpaired: int
    pairs: int
    path: Path

    @property
    def text(self) -> str:
        """The summary as people read it."""
        return (
            f"{self.pairs:,} pairs of {self.questions:,} questions ({self.unanswered:,} without an answer, "
            f"{self.unpaired:,} without a difference, or undecided); {self.verdicts:,} verdicts, "
            f"{self.undecided:,} answers undecided, {self.retried:,} attempts repeated"
        )


def prefer(
    questions: Sequence[Asked],
    output: Path,
    *,
    assistant: VideoAssistant,
    sampled: Sampled,
    judge: Judge,
    rule: Rule = "threshold",
    spelling: Spelling = "messages",
    attempts: int = ATTEMPTS,
    rest_s: float = 1.0,
    report: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Sample, judge and pair what is not yet sampled, judged and paired.

    Args:
        questions: What to ask.
        output: Folder for answers, verdicts and pairs.
        assistant: Who answers.
        sampled: How answers are drawn.
        judge: Who judges them.
        rule: Which answers make a pair.
        spelling: Format of the pairs, as `data.files.write_samples` has it.
        attempts: How often a judge that gives no score is asked about an answer, in this run.
        rest_s: Seconds before the second attempt, twice as many before each further one.
        report: Gets lines for people.

    Raises:
        ConfigError: A question that the judge cannot judge; a judge that will never answer, or is given up
            (`judging.decide_each`); the output has answers that were drawn otherwise.
    """
    for asked in questions:
        judge.refuse(asked)
    output.mkdir(parents=True, exist_ok=True)
    answers, verdicts = Ledger(output / ANSWERS), Ledger(output / VERDICTS)
    _refuse_others(answers, sampled, output)
    said = said_before(answers)
    todo = [asked for asked in questions if sampled.key(asked) not in said]
    unanswered = 0
    told = assistant.chat_each(
        ([asked.turn] for asked in todo),
        frames=sampled.frames,
        n=sampled.answers,
        temperature=sampled.temperature,
        top_p=sampled.top_p,
        max_new_tokens=sampled.max_new_tokens,
        seed=sampled.seed,
    )
    for asked, answer in zip(todo, told, strict=True):
        if isinstance(answer, LlavaNextVideoError):
            unanswered += 1
            report(f"no answer to {asked.id}: {answer}")
            continue
        found = [one.text.strip() for one in (answer, *answer.others)]
        row = {"key": sampled.key(asked), "id": asked.id, "question": asked.text, "sampled": asdict(sampled)}
        answers.add({**row, "answers": found})
        said[sampled.key(asked)] = found
        report(f"answered {asked.id}")
    known = scores_before(verdicts)
    open_answers = [
        (asked, text)
        for asked in questions
        for text in dict.fromkeys(said.get(sampled.key(asked), ()))
        if verdict_key(judge, asked, text) not in known
    ]
    before = len(verdicts.rows)
    decided = _judge(judge, open_answers, verdicts, attempts=attempts, rest_s=rest_s, report=report)
    scores = scores_before(verdicts)
    pairs, notes = [], []
    for asked in questions:
        texts = dict.fromkeys(said.get(sampled.key(asked), ()))
        keys = {text: verdict_key(judge, asked, text) for text in texts}
        judged = {text: scores[key] for text, key in keys.items() if key in scores}
        if (chosen := choose(judged, rule)) is not None:
            pairs.append(_preference(asked, *chosen))
            notes.append(_note(judge, sampled, rule, judged, *chosen))
    partial = output / f"partial-{PAIRS}"
    write_samples(partial, pairs, spelling=spelling, notes=notes)
    partial.replace(output / PAIRS)
    return Summary(
        questions=len(questions),
        unanswered=unanswered,
        verdicts=decided,
        undecided=len(open_answers) - decided,
        retried=len(verdicts.rows) - before - len(open_answers),
        unpaired=len(questions) - unanswered - len(pairs),
        pairs=len(pairs),
        path=output / PAIRS,
    )


def _refuse_others(answers: Ledger, sampled: Sampled, output: Path) -> None:
    """Raise when the answers that are there were drawn otherwise: their pairs would be replaced."""
    if not answers.rows:
        return
    found, wanted = answers.rows[-1]["sampled"], asdict(sampled)
    for name, value in wanted.items():
        if found.get(name) != value:
            flag = FLAGS.get(name, "--" + name.replace("_", "-"))
            raise ConfigError(
                f"{output} has answers made with {flag} {found.get(name)}, not {value}; name another folder"
            )


def _judge(
    judge: Judge,
    cases: Sequence[tuple[Asked, str]],
    verdicts: Ledger,
    *,
    attempts: int,
    rest_s: float,
    report: Callable[[str], None],
) -> int:
    """Have answers scored; each attempt is a line, with or without a score. Gives how many have one now."""

    def keep(case: tuple[Asked, str], told: Mapping[str, object]) -> None:
        asked, text = case
        row = {"key": verdict_key(judge, asked, text), "id": asked.id, "answer": text, "judge": judge.name}
        verdicts.add({**row, "version": judge.version, "prompt": judge.prompt(asked, text), **told})

    def left_open(case: tuple[Asked, str], error: UndecidedError) -> None:
        report(f"undecided on an answer to {case[0].id} after {attempts} attempts: {error}")

    return decide_each(
        cases,
        lambda case: judge.judge(*case),
        what="answers",
        at_once=judge.at_once,
        attempts=attempts,
        rest_s=rest_s,
        trusted=any("score" in row and row["judge"] == judge.name for row in verdicts.rows),
        decided=lambda case, verdict: keep(case, asdict(verdict)),
        undecided=lambda case, error: keep(case, {"error": str(error), "reply": error.reply}),
        left_open=left_open,
    )


def _preference(asked: Asked, chosen: str, rejected: str) -> Preference:
    first, second = (Turn(role="assistant", parts=(Text(text=answer),)) for answer in (chosen, rejected))
    return Preference(id=asked.id, turns=(asked.turn,), chosen=first, rejected=second, place=asked.place)


def _note(
    judge: Judge, sampled: Sampled, rule: Rule, scores: Mapping[str, float], chosen: str, rejected: str
) -> dict[str, Any]:
    """What is stored with a pair: who judged it by which words, and what the answers scored."""
    return {
        "feedback": {
            "judge": judge.name,
            "version": judge.version,
            "rule": rule,
            "model": sampled.model,
            "chosen_score": scores[chosen],
            "rejected_score": scores[rejected],
            "scores": list(scores.values()),
        }
    }
