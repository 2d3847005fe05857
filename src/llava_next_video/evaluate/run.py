"""Ask what was not yet asked, have judged what was not yet judged; stop and go on anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava_next_video.assistant import Answer, VideoAssistant
from llava_next_video.errors import LlavaNextVideoError
from llava_next_video.evaluate.folder import Shard, alone, begin, read_log
from llava_next_video.evaluate.items import Item
from llava_next_video.evaluate.judges import Judge, described
from llava_next_video.evaluate.manifest import Manifest, of_code
from llava_next_video.evaluate.report import Report, score
from llava_next_video.evaluate.rubrics import Rubric
from llava_next_video.evaluate.work import Work
from llava_next_video.judging import Ledger, decide_each
from llava_next_video.media import Clip
from llava_next_video.messages import Turn

ATTEMPTS = 3

Case = tuple[Item, Rubric, list[str]]
"""What is judged: the answers to an item, by a rubric."""


def examine(
    work: Work,
    output: Path,
    *,
    assistant: VideoAssistant,
    model: Manifest,
    judge: Judge | None = None,
    shard: Shard | None = None,
    attempts: int = ATTEMPTS,
    rest_s: float = 1.0,
    told: Callable[[int, int], None] = lambda done, wanted: None,
) -> Report:
    """Answer and judge one shard of an evaluation, and score what all shards have so far.

    Args:
        work: What is asked.
        output: Folder to write, or to go on with.
        assistant: Who answers.
        model: The manifest of what it was loaded from (`manifest.of_model`).
        judge: Who marks, where the protocol wants one.
        shard: Our part, if several processes share the work.
        attempts: How often a judge that gives no grade is asked about an item, in this run.
        rest_s: Seconds before the second attempt, twice as many before each further one.
        told: Gets the number of answers that this shard has, and that it wants.

    Raises:
        ConfigError: The folder was begun otherwise, another process writes this shard, or the judge is
            missing, superfluous, will never answer or is given up (`judging.decide_each`).
    """
    shard = shard or Shard()
    work.refuse_judge(judge)
    manifest = {
        **work.manifest,
        "model": model,
        "judge": None if judge is None else described(judge, work.protocol.rubrics),
        "code": of_code(),
    }
    begin(output, manifest, ((item, work.prompts(item)) for item in work.items))
    log = output / shard.file("answers")
    with alone(log):
        items = shard.of(work.items)
        _answer(work, items, assistant, output, Ledger(log), told)
        if judge is not None:
            verdicts = Ledger(output / shard.file("verdicts"))
            _judge(work, items, judge, output, verdicts, attempts=attempts, rest_s=rest_s)
    return score([output])


def _answer(
    work: Work,
    items: list[Item],
    assistant: VideoAssistant,
    output: Path,
    log: Ledger,
    told: Callable[[int, int], None],
) -> None:
    """Ask what has no answer; a video that cannot be read is a line with an error, and is tried next time."""
    known = {(line["id"], line["part"]) for line in read_log([output], "answers") if "answer" in line}
    asked = [(item, part, prompt) for item in items for part, prompt in enumerate(work.prompts(item))]
    todo = [one for one in asked if (one[0].id, one[1]) not in known]
    told(len(asked) - len(todo), len(asked))
    words: dict[int, str] = {}

    def conversations() -> Iterator[tuple[Turn, ...]]:
        for number, (item, _, prompt) in enumerate(todo, start=1):
            turns = work.conversation(item, prompt, assistant.limits)
            words[number] = turns[0].text
            yield turns

    outcomes = assistant.chat_each(
        conversations(),
        frames=work.sampling,
        temperature=0.0,
        max_new_tokens=work.protocol.max_new_tokens,
        stop=work.protocol.stop,
    )
    for number, ((item, part, _), outcome) in enumerate(zip(todo, outcomes, strict=True), start=1):
        line: dict[str, Any] = {"id": item.id, "part": part, "video": item.video, "prompt": words.pop(number)}
        log.add({**line, **_as_line(outcome)})
        told(len(asked) - len(todo) + number, len(asked))


def _as_line(outcome: Answer | LlavaNextVideoError) -> Mapping[str, Any]:
    if isinstance(outcome, LlavaNextVideoError):
        return {"error": str(outcome)}
    (seen,) = outcome.seen
    assert isinstance(seen, Clip)
    return {
        "answer": outcome.text,
        "finish_reason": outcome.finish_reason,
        "frames": list(seen.indices),
        "times_s": [round(time_s, 3) for time_s in seen.times_s],
        "prompt_tokens": outcome.usage.prompt_tokens,
        "visual_tokens": outcome.usage.visual_tokens,
    }


def _judge(
    work: Work,
    items: list[Item],
    judge: Judge,
    output: Path,
    log: Ledger,
    *,
    attempts: int,
    rest_s: float,
) -> None:
    """Have graded what is answered and has no grade."""
    said = {(line["id"], line["part"]): line for line in read_log([output], "answers") if "answer" in line}
    known = {(line["id"], line["rubric"]) for line in read_log([output], "verdicts") if "score" in line}
    todo: list[Case] = []
    for item in items:
        answers = [
            said[item.id, part]["answer"] for part in range(len(item.questions)) if (item.id, part) in said
        ]
        if len(answers) == len(item.questions):
            open_rubrics = [one for one in work.protocol.rubrics if (item.id, one.name) not in known]
            todo += [(item, rubric, answers) for rubric in open_rubrics]

    def keep(case: Case, told: Mapping[str, object]) -> None:
        item, rubric, answers = case
        log.add({"id": item.id, "rubric": rubric.name, "prompt": rubric.prompt(item, answers), **told})

    decide_each(
        todo,
        lambda case: judge.grade(case[1], case[0], case[2]),
        what="items",
        at_once=judge.at_once,
        attempts=attempts,
        rest_s=rest_s,
        trusted=bool(known),
        decided=lambda case, grade: keep(case, asdict(grade)),
        undecided=lambda case, error: keep(case, {"error": str(error), "reply": error.reply}),
    )
