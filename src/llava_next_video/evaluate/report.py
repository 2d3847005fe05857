"""From logs to scores: a table, the manifest, and a log of every item."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from llava_next_video.disk import write_whole
from llava_next_video.errors import ConfigError
from llava_next_video.evaluate.folder import Line, read_log, read_manifest, read_questions
from llava_next_video.evaluate.items import Item
from llava_next_video.evaluate.manifest import Manifest, lines, refuse_change
from llava_next_video.evaluate.parsers import PARSERS, refuse_parser
from llava_next_video.evaluate.scores import Mean, bootstrap
from llava_next_video.judging import reason

ITEMS, REPORT = "items.jsonl", "report.json"
PER_CENT = 100.0
ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The mean of one metric over one group (`all` is everything)."""

    metric: str
    group: str
    value: str
    score: Mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The scores of an evaluation, and what they depend on.

    Attributes:
        wanted: Items in the evaluation.
        waiting: Items that nobody has asked (or judged) yet.
        unanswered: Items whose video could not be read or did not fit, with the reason; they are not scored.
        undecided: Items of which the judge gave no grade, with the reason; they are not scored in that.
        letterless: Items in whose answer no letter was found; they count as wrong.
    """

    manifest: Manifest
    rows: tuple[Row, ...]
    wanted: int
    waiting: int
    unanswered: Mapping[str, str]
    undecided: Mapping[str, str]
    letterless: tuple[str, ...]

    def overall(self, metric: str = "accuracy") -> Mean:
        """The mean of a metric over all items.

        Raises:
            ConfigError: It was not measured.
        """
        for row in self.rows:
            if (row.metric, row.group) == (metric, ALL):
                return row.score
        measured = ", ".join(dict.fromkeys(row.metric for row in self.rows))
        raise ConfigError(f"no {metric} was measured, but {measured or 'nothing'}")

    @property
    def text(self) -> str:
        """The report as people read it: scores, what is not in them, the manifest."""
        return "\n".join((*self._table(), "", *self._notes(), "", "```text", *lines(self.manifest), "```"))

    def as_record(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return asdict(self)

    def _table(self) -> Iterator[str]:
        yield "| metric | group | | mean | 95 % | items |"
        yield "|---|---|---|---|---|---|"
        for row in self.rows:
            unit = " %" if row.metric == "accuracy" else ""
            score = row.score
            told = f"{score.mean:.2f}{unit} | {score.low:.2f} to {score.high:.2f}"
            yield f"| {row.metric} | {row.group} | {row.value} | {told} | {score.count:,} |"

    def _notes(self) -> Iterator[str]:
        scored = self.wanted - self.waiting - len(self.unanswered)
        yield f"{scored:,} of {self.wanted:,} items answered; intervals are over videos (bootstrap)."
        if self.waiting:
            told = _counted(self.waiting, "item waits", "items wait")
            yield f"{told} for an answer or a verdict: this is not the score yet."
        if self.unanswered:
            told = _counted(
                len(self.unanswered),
                "item is not scored, as it could not be asked",
                "items are not scored, as they could not be asked",
            )
            yield f"{told} (the first: {_first(self.unanswered)})."
        if self.undecided:
            told = _counted(len(self.undecided), "item is", "items are")
            first = _first(self.undecided)
            yield f"{told} not scored in what the judge gave no grade for (the first: {first})."
        if self.letterless:
            yield _counted(
                len(self.letterless),
                "answer holds no letter for the parser; it counts as wrong.",
                "answers hold no letter for the parser; they count as wrong.",
            )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def score(folders: Sequence[Path], *, parser: str | None = None) -> Report:
    """The scores of the answers in some folders, which must have one manifest; writes them into the first.

    Args:
        folders: Outputs of `examine`, whole or shards.
        parser: Mark by this parser instead of the protocol's, to see what it makes of the same answers;
            nothing is written then.

    Raises:
        DataError: A folder without an evaluation.
        ConfigError: Folders whose manifests differ, or a parser that is unknown or would not be used.
    """
    manifest = read_manifest(folders[0])
    for folder in folders[1:]:
        refuse_change(manifest, read_manifest(folder), folder)
    if parser is not None:
        refuse_parser(parser, marked_by_judge=manifest["judge"] is not None)
        manifest = {
            **manifest,
            "protocol": {**cast(Mapping[str, str], manifest["protocol"]), "parser": parser},
        }
    answers = _latest(read_log(folders, "answers"), "part", "answer")
    verdicts = _latest(read_log(folders, "verdicts"), "rubric", "score")
    scored = [
        _scored(item, prompts, answers[item.id], verdicts[item.id], manifest)
        for item, prompts in read_questions(folders[0])
    ]
    report = Report(
        manifest=manifest,
        rows=tuple(_rows(scored)),
        wanted=len(scored),
        waiting=sum(one["state"] == "waiting" for one in scored),
        unanswered={one["id"]: one["error"] for one in scored if one["state"] == "unanswered"},
        undecided={one["id"]: _open(one["verdicts"]) for one in scored if one["state"] == "undecided"},
        letterless=tuple(one["id"] for one in scored if one.get("letter") == ""),
    )
    if parser is None:
        write_whole(folders[0] / ITEMS, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in scored))
        write_whole(folders[0] / REPORT, json.dumps(report.as_record(), indent=1, ensure_ascii=False) + "\n")
    return report


def _first(reasons: Mapping[str, str]) -> str:
    return ": ".join(next(iter(reasons.items())))


def _open(verdicts: Sequence[Line]) -> str:
    """Why the first of them that is open has no grade."""
    line = next(line for line in verdicts if "score" not in line)
    return reason(line["error"], line["reply"])


def _latest(log: Sequence[Line], key: str, wanted: str) -> dict[str, dict[object, Line]]:
    """Lines by item and key; of several the last, but none without what is wanted over one that has it."""
    found: dict[str, dict[object, Line]] = defaultdict(dict)
    for line in log:
        if wanted in line or wanted not in found[line["id"]].get(line[key], {}):
            found[line["id"]][line[key]] = line
    return found


def _rows(scored: Sequence[Line]) -> Iterator[Row]:
    """The means over everything and over each value of each group, a metric after the other."""
    marks: dict[tuple[str, str, str], list[tuple[str, float]]] = defaultdict(list)
    for one in scored:
        for metric, mark in one["marks"].items():
            for group, value in ((ALL, ""), *one["groups"].items()):
                marks[metric, group, value].append((one["video"], mark))
    for metric, group, value in sorted(marks, key=lambda key: (key[0], key[1] != ALL, key)):
        yield Row(metric=metric, group=group, value=value, score=bootstrap(marks[metric, group, value]))


def _scored(
    item: Item,
    prompts: Sequence[str],
    said: Mapping[object, Line],
    verdicts: Mapping[object, Line],
    manifest: Manifest,
) -> dict[str, Any]:
    """An item with all that is known of it, as `items.jsonl` has it."""
    one: dict[str, Any] = {**asdict(item), "prompts": list(prompts), "marks": {}, "state": "scored"}
    errors = [line["error"] for line in said.values() if "answer" not in line]
    if errors:
        return {**one, "state": "unanswered", "error": errors[0]}
    if len(said) < len(prompts):
        return {**one, "state": "waiting"}
    one["answers"] = [said[part] for part in range(len(prompts))]
    if manifest["judge"] is None:
        protocol = cast(Mapping[str, str], manifest["protocol"])
        letter = PARSERS[protocol["parser"]](one["answers"][0]["answer"], item.options)
        right = letter == item.truth
        return {**one, "letter": letter, "right": right, "marks": {"accuracy": PER_CENT * right}}
    rubrics = cast(Mapping[str, Mapping[str, str]], manifest["judge"])["rubrics"]
    one["verdicts"] = [verdicts[name] for name in rubrics if name in verdicts]
    for name in rubrics:
        verdict = verdicts.get(name)
        if verdict is None or "score" not in verdict:
            one["state"] = "waiting" if verdict is None else "undecided"
        elif verdict["right"] is None:
            one["marks"][name] = verdict["score"]
        else:
            one["marks"] |= {"score": verdict["score"], "accuracy": PER_CENT * verdict["right"]}
    return one
