"""Examinations from the command line, and what is refused before a model is loaded."""

import json
import sys
from pathlib import Path

import pytest
from tests.evaluate.toy_sets import film_toys, write_set

from llava_next_video.cli import run


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy set beside its videos."""
    desk = tmp_path_factory.mktemp("desk")
    toys = film_toys(desk / "videos", clips=1)
    for name in ("videomme", "tgifqa"):
        write_set(name, toys, desk)
    return desk


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `evaluate` with these words."""
    monkeypatch.setattr(sys, "argv", ["llava-next-video", "evaluate", *map(str, words)])
    code = run()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_run_prints_scores_with_their_manifest_and_score_prints_them_again(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores"
    common = ("run", "videomme", desk / "test.parquet", "--videos", desk / "videos", "--output", out)
    code, printed, _ = told(capsys, monkeypatch, *common, "--frames", "4", "--protocol", "lmms-eval")
    assert code == 0
    assert printed.startswith("| metric | group |")
    assert "  frames: 4\n" in printed
    assert json.loads((out / "report.json").read_text())["wanted"] == 2
    assert told(capsys, monkeypatch, "score", out) == (0, printed, "")
    code, _, refused = told(capsys, monkeypatch, *common, "--frames", "2", "--protocol", "lmms-eval")
    assert (code, refused.count("\n")) == (1, 2)  # the first says which checkpoint answers
    assert "sampler.frames: 4, now 2" in refused


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--protocol", "mine"), "tgifqa has no protocol 'mine'; its protocols: video-chatgpt"),
        ((), "tgifqa is marked by a judge; give --judge URL --judge-model NAME, or world"),
        (("--judge", "somebody"), "--judge is 'somebody'; expected world, or the URL of a server"),
        (("--judge", "http://127.0.0.1:9/v1"), "--judge-model goes with a judge's URL"),
        (
            ("--judge", "https://api.example.org/v1", "--judge-model", "m"),
            "judge https://api.example.org/v1: no key; set OPENAI_API_KEY",
        ),
        (("--shard", "0/2"), "shard '0/2'; expected for instance 2/4"),
        (("--limit", "0"), "--attempts is 3 and --limit 0; expected at least 1"),
        (("--videos", "."), "1 of 1 videos are missing (toy0); add them"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    more: tuple[str, ...],
    sentence: str,
    desk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    table = desk / "Test_frameqa_question.csv"
    words = ("run", "tgifqa", table, "--videos", desk / "videos", "--output", tmp_path / "out", *more)
    code, printed, refused = told(capsys, monkeypatch, *words)
    assert (code, printed) == (1, "")
    assert sentence in refused
    assert refused.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_without_any_grade_says_why_and_can_be_told_from_one_with_grades(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = desk / "Test_frameqa_question.csv"
    words = ("run", "tgifqa", table, "--videos", desk / "videos", "--output", tmp_path / "out")
    gone = ("--judge", "http://127.0.0.1:9/v1", "--judge-model", "jj", "--attempts", "1")
    code, printed, refused = told(capsys, monkeypatch, *words, *gone)
    assert code == 1
    assert "gave no grade for (the first: F0: not reached ([Errno 111] Connection refused))." in printed
    assert "the judge gave no grade to any of 2 items; see the reason above" in refused.splitlines()[-1]


def test_the_list_names_every_benchmark_with_columns_protocols_and_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, printed, _ = told(capsys, monkeypatch, "list")
    assert code == 0
    assert "videomme: question_id, videoID, question, options, answer" in printed
    assert "  --protocol lmms-eval (ranked-letter): lmms-eval 0.7, tasks/videomme, `default`" in printed
    assert "(judge: correctness, judge: detail, judge: context)" in printed


def test_the_answers_of_the_world_can_be_kept_and_add_up_to_the_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, answers = tmp_path / "scores.json", tmp_path / "answers.jsonl"
    common = ("world", "--clips", "1", "--images", "1", "--frames", "4", "--seed", "5")
    code, _, _ = told(capsys, monkeypatch, *common, "--out", scores, "--answers", answers)
    assert code == 0
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    counted = json.loads(scores.read_text())["scores"]
    for group, families in counted.items():
        for family, (right, asked) in families.items():
            mine = [row for row in rows if (row["group"], row["family"]) == (group, family)]
            assert [sum(row["answer"] == row["truth"] for row in mine), len(mine)] == [right, asked]
    assert len(rows) == sum(asked for families in counted.values() for _, asked in families.values())
    before = answers.read_bytes(), scores.read_bytes()
    assert told(capsys, monkeypatch, *common, "--out", scores, "--answers", answers)[0] == 0
    assert (answers.read_bytes(), scores.read_bytes()) == before
    code, printed, refused = told(capsys, monkeypatch, *common, "--frames", "8", "--answers", answers)
    assert (code, printed, refused.count("\n")) == (1, "", 2)  # the first says which checkpoint answers
    assert f"{answers} was begun with another manifest (sampler.frames: 4, now 8)" in refused


def test_a_folder_that_is_missing_is_told_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, refused = told(capsys, monkeypatch, "world", "--out", tmp_path / "gone" / "scores.json")
    assert code == 1
    assert f"there is no folder {tmp_path / 'gone'}; make it first" in refused
