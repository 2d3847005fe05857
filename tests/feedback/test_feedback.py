"""Answers are sampled once, judged by somebody, and become pairs that training reads."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.judging.judge_server import JudgeServer

from llava_next_video.assistant import VideoAssistant
from llava_next_video.cli import run
from llava_next_video.data.files import read_samples
from llava_next_video.data.record import Preference
from llava_next_video.errors import ConfigError, DataError
from llava_next_video.feedback import (
    EndpointJudge,
    OwnJudge,
    Sampled,
    WorldJudge,
    plan,
    prefer,
    read_questions,
)
from llava_next_video.feedback.pairing import choose
from llava_next_video.feedback.questions import Asked
from llava_next_video.feedback.rubric import VERSION, judge_prompt
from llava_next_video.judging import ChatServer, Ledger, UndecidedError
from llava_next_video.world import truth_share

# So hot that answers differ whatever the processor rounds.
SAMPLED = Sampled(model="default", answers=3, temperature=5.0, top_p=1.0, max_new_tokens=8, frames=4)


@pytest.fixture
def asked(world: Path) -> list[Asked]:
    return read_questions(world)


def longer_is_better(prompt: str) -> str:
    """A judge with a simple mind: long answers are good."""
    answer = prompt.split("Answer to grade: ")[1].split("\n")[0]
    return f"It has {len(answer)} characters. Score: {min(5, 1 + len(answer) // 5)}"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def endpoint(server: JudgeServer, **given: object) -> EndpointJudge:
    return EndpointJudge(server=ChatServer(url=server.url, model="judge-1", **given), at_once=2)


def test_questions_are_rows_or_conversations(world: Path, tmp_path: Path) -> None:
    talked = json.loads(world.read_text())
    asked = read_questions(world)
    assert [one.id for one in asked] == [row["id"] for row in talked]
    assert [one.truth for one in asked] == [row["conversations"][1]["value"] for row in talked]
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"id": "q", "video": "a.mp4", "question": "Why?", "caption": "A dog runs."}))
    (one,) = read_questions(path)
    assert (one.text, one.caption, one.truth) == ("Why?", "A dog runs.", None)
    assert one.turn.media[0].source == str(tmp_path / "a.mp4")
    path.write_text(path.read_text() + "\n" + path.read_text())
    with pytest.raises(DataError, match=r"questions\.jsonl:2: a second question 'q'"):
        read_questions(path)


def test_a_judge_behind_http_decides_and_pairs_are_read_back_by_training(
    asked: list[Asked], assistant: VideoAssistant, server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = longer_is_better
    judge = endpoint(server, key="secret")
    summary = prefer(asked, tmp_path, assistant=assistant, sampled=SAMPLED, judge=judge, rule="best_worst")
    assert summary.questions == 2
    assert summary.verdicts == len(server.asked)
    assert {body["path"] for body in server.asked} == {"/v1/chat/completions"}
    assert {body["temperature"] for body in server.asked} == {0}
    assert all(headers["Authorization"] == "Bearer secret" for headers in server.headers)
    assert summary.pairs >= 1
    read = list(read_samples(summary.path))
    assert len(read) == summary.pairs
    scores = {row["answer"]: row["score"] for row in lines(tmp_path / "verdicts.jsonl")}
    for pair, row in zip(read, lines(summary.path), strict=True):
        assert isinstance(pair, Preference)
        source = next(one for one in asked if one.id == pair.id)
        assert pair.turns == (source.turn,)
        assert scores[pair.chosen.text] > scores[pair.rejected.text]
        told = row["feedback"]
        assert (told["judge"], told["version"]) == ("endpoint:judge-1", VERSION)
        assert told["chosen_score"] == scores[pair.chosen.text]
    assert all(
        row["prompt"] and row["judge"] == "endpoint:judge-1" for row in lines(tmp_path / "verdicts.jsonl")
    )
    for path in tmp_path.iterdir():
        assert "secret" not in path.read_text()


def test_nothing_is_asked_twice_and_a_cut_line_is_forgotten(
    asked: list[Asked], assistant: VideoAssistant, server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = longer_is_better
    given = {"assistant": assistant, "sampled": SAMPLED, "judge": endpoint(server), "rule": "best_worst"}
    first = prefer(asked, tmp_path, **given)
    pairs = first.path.read_text()
    calls = len(server.asked)
    verdicts = tmp_path / "verdicts.jsonl"
    whole = verdicts.read_bytes()
    verdicts.write_bytes(whole[: whole.rfind(b"\n", 0, -1) + 20])  # Killed in the middle of the last line.
    again = prefer(asked, tmp_path, **given)
    assert len(server.asked) == calls + 1
    assert again.verdicts == 1
    assert again.path.read_text() == pairs
    assert prefer(asked, tmp_path, **given).verdicts == 0
    assert len(lines(tmp_path / "answers.jsonl")) == 2


def test_nonsense_is_kept_counted_and_retried_but_never_scored(
    asked: list[Asked], assistant: VideoAssistant, server: JudgeServer, tmp_path: Path
) -> None:
    replies = iter(["I like it!", 503, "Score: 11"])
    server.reply = lambda prompt: next(replies, "Score: 4")
    told: list[str] = []
    summary = prefer(
        asked[:1],
        tmp_path,
        assistant=assistant,
        sampled=SAMPLED,
        judge=replace(endpoint(server), at_once=1),
        rest_s=0.0,
        report=told.append,
    )
    rows = lines(tmp_path / "verdicts.jsonl")
    failed = [row for row in rows if "score" not in row]
    assert [row["reply"] for row in failed] == ["I like it!", "", "Score: 11"]
    assert failed[1]["error"] == "the judge answered 503 Service Unavailable"
    assert (summary.undecided, summary.retried) == (1, 2)
    assert summary.pairs == 0
    assert any("undecided on an answer to clip-000000 after 3 attempts" in line for line in told)
    again = prefer(asked[:1], tmp_path, assistant=assistant, sampled=SAMPLED, judge=endpoint(server))
    assert (again.verdicts, again.undecided) == (1, 0)


def test_a_judge_that_is_silent_times_out_and_one_that_refuses_stops_the_run(
    asked: list[Asked], server: JudgeServer
) -> None:
    server.reply = lambda prompt: None
    with pytest.raises(UndecidedError, match=r"no reply within 0.2 s"):
        endpoint(server, timeout_s=0.2).judge(asked[0], "A star.")
    server.reply = lambda prompt: 401
    with pytest.raises(ConfigError, match="the judge answered 401 Unauthorized; see the address"):
        endpoint(server).judge(asked[0], "A star.")
    gone = EndpointJudge(server=ChatServer(url="http://127.0.0.1:9", model="x"))
    with pytest.raises(UndecidedError, match="not reached"):
        gone.judge(asked[0], "A star.")


def test_the_truth_of_the_world_judges_without_a_model(
    asked: list[Asked], assistant: VideoAssistant, tmp_path: Path
) -> None:
    question = replace(asked[0], truth="A red star moves left and a blue ring grows.")
    judge = WorldJudge()
    assert judge.judge(question, "A red star moves left and a blue ring grows.").score == 5
    assert judge.judge(question, "A red star moves left and a blue ring shrinks.").score == pytest.approx(
        1 + 4 / 3
    )
    assert judge.judge(question, "A blue ring grows and a red star moves left.").score == 4.5
    assert judge.judge(question, "It is nice.").score == 1
    with pytest.raises(ConfigError, match="needs the true answer"):
        judge.refuse(replace(question, truth=None))
    # What is said three times counts once as right and twice as too much.
    assert truth_share("A red star grows. A red star grows. A red star grows.", "A red star grows.") == 1 / 3


def test_the_model_itself_judges_what_it_sees(asked: list[Asked], assistant: VideoAssistant) -> None:
    judge = OwnJudge(assistant=assistant, model="default", frames=4, max_new_tokens=8)
    assert judge.prompt(asked[0], "A star.").startswith("Look at the video.")
    # The tiny model knows shapes and nothing of grades: it gives none, and none is made up.
    with pytest.raises(UndecidedError, match="no score from 1 to 5"):
        judge.judge(asked[0], "A star.")


def test_a_missing_clip_is_told_and_the_others_go_on(
    asked: list[Asked], assistant: VideoAssistant, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"id": "gone", "video": "gone.mp4", "question": "Why?", "answer": "So."}))
    told: list[str] = []
    summary = prefer(
        [*read_questions(path), asked[0]],
        tmp_path / "out",
        assistant=assistant,
        sampled=SAMPLED,
        judge=WorldJudge(),
        report=told.append,
    )
    assert summary.unanswered == 1
    assert told[0].startswith("no answer to gone: ")
    assert "gone.mp4" in told[0]
    assert [row["id"] for row in lines(tmp_path / "out" / "answers.jsonl")] == [asked[0].id]


def test_a_plan_counts_what_is_left_and_asks_nothing(
    asked: list[Asked], assistant: VideoAssistant, server: JudgeServer, tmp_path: Path
) -> None:
    judge = endpoint(server)
    before = plan(asked, tmp_path / "none", sampled=SAMPLED, judge=judge)
    assert (before.questions, before.to_answer, before.answers, before.new_tokens) == (2, 2, 6, 48)
    assert before.verdicts == 6
    assert before.judge_tokens >= 3 * sum(len(judge_prompt(one, "", sees=False)) for one in asked) // 4
    assert not (tmp_path / "none").exists()
    prefer(asked[:1], tmp_path, assistant=assistant, sampled=SAMPLED, judge=judge)
    calls = len(server.asked)
    after = plan(asked, tmp_path, sampled=SAMPLED, judge=judge)
    assert (after.to_answer, after.answers, after.verdicts) == (1, 3, 3)
    assert len(server.asked) == calls


@given(st.dictionaries(st.text(min_size=1), st.floats(1, 5), max_size=6))
def test_a_chosen_answer_never_scores_less_than_the_rejected_one(scores: dict[str, float]) -> None:
    for rule in ("threshold", "best_worst"):
        chosen = choose(scores, rule)
        if chosen is not None:
            assert scores[chosen[0]] > scores[chosen[1]]
            assert rule == "best_worst" or scores[chosen[0]] >= 3 > scores[chosen[1]]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"answers": 1}, "a pair needs at least 2"),
        ({"temperature": 0.0}, "temperature 0 gives equal answers"),
    ],
)
def test_samples_that_could_give_no_pair_are_refused(given: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        replace(SAMPLED, **given)


def test_a_ledger_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    Ledger(path).add({"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2')
    ledger = Ledger(path)
    ledger.add({"a": 3})
    assert [row["a"] for row in Ledger(path).rows] == [1, 3]


@pytest.fixture
def said(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of `prefer` about the world with these arguments."""

    def said(*arguments: str) -> tuple[int, str, str]:
        line = ["lnv", "prefer", str(world), "--output", str(tmp_path / "out"), *arguments]
        monkeypatch.setattr(sys, "argv", line)
        code = run()
        told = capsys.readouterr()
        return code, told.out, told.err

    return said


def test_the_command_plans_and_refuses_in_one_line(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = said("--dry-run", "--max-tokens", "8")
    assert code == 0
    assert out.startswith("2 questions, 2 without answers: 12 to sample, at most 96 tokens\n")
    assert not (tmp_path / "out").exists()
    for arguments, complaint in (
        (["--judge", "nobody"], "expected world, self, or the URL"),
        (["--judge", "http://127.0.0.1:9"], "--judge-model goes with a judge's URL"),
        (["--rule", "best"], "expected threshold or best_worst"),
        (["--answers", "1"], "a pair needs at least 2"),
        (["--limit", "0"], "--attempts is 3 and --limit 0; expected at least 1"),
    ):
        code, _, err = said(*arguments)
        assert code == 1
        assert complaint in err
        assert err.count("\n") == 1
    unheard = ["--judge", "http://127.0.0.1:9", "--judge-model", "m", "--attempts", "1"]
    code, out, err = said(*unheard, "--answers", "2", "--max-tokens", "4", "--temperature", "2")
    assert (code, out) == (1, "")
    assert "the judge gave no score to any of" in err.splitlines()[-1]


def test_a_limit_takes_the_first_questions_and_a_run_without_it_asks_the_others(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    few = ("--answers", "2", "--max-tokens", "4", "--temperature", "5")
    answers, verdicts = tmp_path / "out" / "answers.jsonl", tmp_path / "out" / "verdicts.jsonl"
    _, planned, _ = said(*few, "--limit", "1", "--dry-run")
    assert planned.startswith("1 questions, 1 without answers: 2 to sample, at most 8 tokens\n")
    code, _, told = said(*few, "--limit", "1")
    assert code == 0
    assert " pairs of 1 questions " in told
    assert [row["id"] for row in lines(answers)] == ["clip-000000"]
    first = answers.read_text(), verdicts.read_text()
    _, planned, _ = said(*few, "--dry-run")
    assert planned.startswith(
        "2 questions, 1 without answers: 2 to sample, at most 8 tokens\nat most 2 calls"
    )
    assert said(*few)[0] == 0
    assert [row["id"] for row in lines(answers)] == ["clip-000000", "clip-000001"]
    kept = answers.read_text().startswith(first[0]), verdicts.read_text().startswith(first[1])
    assert kept == (True, True)
    asked = [row["key"] for row in lines(verdicts)]
    assert len(asked) == len(set(asked))


def test_a_folder_with_answers_that_were_drawn_otherwise_is_refused_and_kept(
    asked: list[Asked], assistant: VideoAssistant, tmp_path: Path
) -> None:
    first = prefer(asked[:1], tmp_path, assistant=assistant, sampled=SAMPLED, judge=WorldJudge())
    before = first.path.read_bytes()
    with pytest.raises(ConfigError, match=r"made with --max-tokens 8, not 9; name another folder"):
        prefer(
            asked[:1],
            tmp_path,
            assistant=assistant,
            sampled=replace(SAMPLED, max_new_tokens=9),
            judge=WorldJudge(),
        )
    assert first.path.read_bytes() == before


def test_a_judge_that_talks_nonsense_ends_the_run_after_ten_answers(
    asked: list[Asked], assistant: VideoAssistant, server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = lambda prompt: "Well done!"
    row = {"key": SAMPLED.key(asked[0]), "id": "q", "sampled": asdict(SAMPLED)}
    Ledger(tmp_path / "answers.jsonl").add({**row, "answers": [f"A {n}." for n in range(40)]})
    judge = replace(endpoint(server), at_once=1)
    given = {"assistant": assistant, "sampled": SAMPLED, "attempts": 2, "rest_s": 0.0}
    with pytest.raises(
        ConfigError, match=r"none of the first 10 answers \(no score .* reply 'Well done!'\); name"
    ):
        prefer(asked[:1], tmp_path, judge=judge, **given)
    assert len(server.asked) == 10 * 2
    server.reply = lambda prompt: "Score: 4"
    assert prefer(asked[:1], tmp_path, judge=judge, **given).verdicts == 40


def test_a_judge_that_is_not_there_ends_the_run_after_five_answers(
    asked: list[Asked], assistant: VideoAssistant, tmp_path: Path
) -> None:
    judge = EndpointJudge(server=ChatServer(url="http://127.0.0.1:9", model="x"), at_once=1)
    key = SAMPLED.key(asked[0])
    row = {"key": key, "id": "q", "sampled": asdict(SAMPLED), "answers": [f"A {n}." for n in range(9)]}
    Ledger(tmp_path / "answers.jsonl").add(row)
    with pytest.raises(ConfigError, match=r"not reached for 5 answers in a row .*: answers and verdicts are"):
        prefer(asked[:1], tmp_path, assistant=assistant, sampled=SAMPLED, judge=judge, attempts=1)
    assert len(lines(tmp_path / "verdicts.jsonl")) in (5, 6)  # one more may have begun
    assert len(lines(tmp_path / "answers.jsonl")) == 1
