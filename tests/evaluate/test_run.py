"""A whole evaluation: asked once, marked by parser or judge, and scored with what it depends on."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.evaluate.toy_sets import Toy, write_set
from tests.judging.judge_server import JudgeServer

from llava_next_video.assistant import VideoAssistant
from llava_next_video.checkpoint_name import default_checkpoint
from llava_next_video.errors import ConfigError, DataError
from llava_next_video.evaluate import (
    ServerJudge,
    Shard,
    Work,
    WorldJudge,
    bootstrap,
    examine,
    prepare,
    score,
)
from llava_next_video.evaluate.folder import alone
from llava_next_video.evaluate.manifest import Manifest, of_model
from llava_next_video.judging import ChatServer
from llava_next_video.media import Sampling

LOG = "answers-1-of-1.jsonl"
Written = Callable[[str], Path]
Examine = Callable[..., object]


@pytest.fixture
def choice(written: Written, clips: Path) -> Work:
    """The toys as Video-MME, asked as lmms-eval does."""
    return prepare("videomme", [written("videomme")], clips, protocol="lmms-eval")


@pytest.fixture
def opened(written: Written, clips: Path) -> Work:
    """The toys as open questions."""
    return prepare("msrvttqa", [written("msrvttqa")], clips)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_scores_are_the_shares_of_right_letters_and_each_item_is_on_record(
    choice: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    report = examine(choice, tmp_path, assistant=assistant, model=model)
    items = lines(tmp_path / "items.jsonl")
    assert [one["id"] for one in items] == [item.id for item in choice.items]
    right = [one["answers"][0]["answer"] == one["truth"] for one in items]
    assert 0 < sum(right) < len(right)
    assert report.overall().mean == 100 * sum(right) / len(right)
    assert report.overall().count == len(items)
    by_duration = {row.value: row.score for row in report.rows if row.group == "duration"}
    for duration, told in by_duration.items():
        marks = [
            mark for one, mark in zip(items, right, strict=True) if one["groups"]["duration"] == duration
        ]
        assert told.mean == 100 * sum(marks) / len(marks)
    assert len(items[0]["answers"][0]["frames"]) == 8
    assert json.loads((tmp_path / "report.json").read_text())["manifest"] == json.loads(
        (tmp_path / "manifest.json").read_text()
    )
    for told in ("name: lmms-eval", "parser: ranked-letter", "how: uniform", f"sha256: {model['sha256']}"):
        assert told in report.text
    assert "| accuracy | duration | short |" in report.text


def test_a_run_that_was_broken_off_asks_only_what_is_open(
    choice: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, wanted: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        examine(choice, tmp_path / "stopped", assistant=assistant, model=model, told=stop)
    log = tmp_path / "stopped" / "answers-1-of-1.jsonl"
    assert len(lines(log)) == 2
    with log.open("a") as file:
        file.write('{"id": "torn by a ki')
    assert score([tmp_path / "stopped"]).waiting == 4
    told: list[tuple[int, int]] = []
    again = examine(
        choice,
        tmp_path / "stopped",
        assistant=assistant,
        model=model,
        told=lambda done, wanted: told.append((done, wanted)),
    )
    assert told == [(2, 6), (3, 6), (4, 6), (5, 6), (6, 6)]
    assert len(lines(log)) == 6
    whole = examine(choice, tmp_path / "whole", assistant=assistant, model=model)
    assert again == whole


def test_the_same_answers_can_be_marked_by_another_parser(
    choice: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    written = examine(choice, tmp_path, assistant=assistant, model=model)
    log = tmp_path / "answers-1-of-1.jsonl"
    log.write_text(re.sub(r'"answer": "([A-D])"', r'"answer": "It is not A but \1"', log.read_text()))
    other = score([tmp_path], parser="first-letter")
    assert other.overall().mean == 100 * sum(item.truth == "A" for item in choice.items) / len(choice.items)
    assert score([tmp_path]).overall() == written.overall()
    assert "parser: first-letter" in other.text
    assert (
        json.loads((tmp_path / "report.json").read_text())["manifest"]["protocol"]["parser"]
        == "ranked-letter"
    )
    with pytest.raises(ConfigError, match="unknown parser 'mine'"):
        score([tmp_path], parser="mine")


def test_shards_share_the_work_by_video_and_their_union_is_the_whole(
    choice: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    whole = examine(choice, tmp_path / "whole", assistant=assistant, model=model)
    shared, apart = tmp_path / "shared", tmp_path / "apart"
    first = examine(choice, shared, assistant=assistant, model=model, shard=Shard(number=1, count=2))
    assert first.waiting == 2
    assert "2 items wait for an answer" in first.text
    examine(choice, apart, assistant=assistant, model=model, shard=Shard(number=2, count=2))
    assert {line["video"] for line in lines(apart / "answers-2-of-2.jsonl")} == {"toy1"}
    assert score([shared, apart]) == whole
    both = examine(choice, shared, assistant=assistant, model=model, shard=Shard(number=2, count=2))
    assert both == whole


def test_one_shard_is_written_by_one_process(
    choice: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    with (
        alone(tmp_path / "answers-1-of-1.jsonl"),
        pytest.raises(
            ConfigError, match="another process writes it; wait for it, or share the work with --shard"
        ),
    ):
        examine(choice, tmp_path, assistant=assistant, model=model)
    with pytest.raises(ConfigError, match="shard '3/2'; expected for instance 2/4"):
        Shard.parsed("3/2")


def test_a_changed_manifest_is_refused_with_what_changed(
    choice: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    examine(choice, tmp_path, assistant=assistant, model=model)
    other = replace(choice, sampling=Sampling(frames=4))
    with pytest.raises(
        ConfigError, match=r"another manifest \(sampler\.frames: 8, now 4\); go on as it was begun"
    ):
        examine(other, tmp_path, assistant=assistant, model=model)
    other_weights = {**model, "sha256": "0000", "quantize": "int8"}
    with pytest.raises(ConfigError, match=r"model\.quantize: none, now int8; model\.sha256: .*, now 0000"):
        examine(choice, tmp_path, assistant=assistant, model=other_weights)
    with pytest.raises(DataError, match="no evaluation was begun there"):
        score([tmp_path / "nowhere"])


def test_the_manifest_says_by_what_and_in_which_numbers_answers_are_computed(model: Manifest) -> None:
    other = VideoAssistant.load(reference=True, dtype="float16", device="cpu")
    told = of_model(other, "tiny", default_checkpoint(), rope_factor=2.0)
    changed = {key: (model[key], told[key]) for key in model if model[key] != told[key]}
    assert changed.keys() == {"network", "dtype", "rope_factor"}
    assert changed["network"] == ("engine", "reference")
    assert changed["dtype"][1] == "float16"
    assert model["pool"] == {"spatial_pool_mode": "average", "spatial_pool_stride": 2}


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_the_manifest_tells_a_quantised_reference_from_a_whole_one() -> None:
    pytest.importorskip("bitsandbytes", reason="the quant extra is not installed")
    told = [
        of_model(VideoAssistant.load(quantize=quantize, device="cpu"), "tiny", default_checkpoint())[
            "quantize"
        ]
        for quantize in ("bnb-4bit", "bnb-8bit")
    ]
    assert all(isinstance(one, dict) for one in told)
    assert [(one.get("load_in_4bit"), one.get("load_in_8bit")) for one in told] == [
        (True, None),
        (None, True),
    ]


def test_a_video_that_cannot_be_read_is_listed_and_not_scored(
    toys: list[Toy], clips: Path, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    for number in range(3):
        (tmp_path / f"toy{number}.mp4").symlink_to(clips / f"toy{number}.mp4")
    (tmp_path / "toy1.mp4").unlink()
    (tmp_path / "toy1.mp4").write_text("no video")
    path = write_set("videomme", toys, tmp_path / "set")
    for number, subtitles in enumerate((None, tmp_path)):
        work = prepare("videomme", [path], tmp_path, protocol="lmms-eval", subtitles=subtitles)
        report = examine(work, tmp_path / f"out{number}", assistant=assistant, model=model)
        assert report.unanswered.keys() == {"001-2", "001-3"}
        assert report.overall().count == 4
        assert "2 items are not scored, as they could not be asked (the first: 001-2: " in report.text
    (tmp_path / "toy1.mp4").unlink()
    (tmp_path / "toy1.mp4").symlink_to(clips / "toy1.mp4")
    assert all("No subtitles available" in line["prompt"] for line in lines(tmp_path / "out1" / LOG)[:2])
    mended = examine(work, tmp_path / "out1", assistant=assistant, model=model)
    assert (mended.unanswered, mended.overall().count) == ({}, 6)


def judge_of(server: JudgeServer) -> ServerJudge:
    return ServerJudge(server=ChatServer(url=server.url, model="judge-1", key="secret"), at_once=2)


def test_a_judge_says_yes_or_no_and_a_score_and_is_asked_once(
    opened: Work, assistant: VideoAssistant, model: Manifest, server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = lambda prompt: (
        "{'pred': 'yes', 'score': 4.8}"
        if "toy" not in prompt and "colour" in prompt
        else "{'pred': 'no', 'score': 1}"
    )
    report = examine(opened, tmp_path, assistant=assistant, model=model, judge=judge_of(server))
    items = lines(tmp_path / "items.jsonl")
    yes = ["colour" in one["verdicts"][0]["prompt"] for one in items]
    assert report.overall("accuracy").mean == 100 * sum(yes) / 6
    assert report.overall("score").mean == pytest.approx(sum(4 if one else 1 for one in yes) / 6)
    assert report.manifest["judge"]["name"] == "endpoint:judge-1"
    assert len(server.asked) == 6
    said = server.asked[0]["messages"][1]["content"]
    assert "Provide your evaluation only as a yes/no and score" in said
    assert examine(opened, tmp_path, assistant=assistant, model=model, judge=judge_of(server)) == report
    assert len(server.asked) == 6


def test_an_item_without_a_grade_is_undecided_and_asked_again_next_time(
    opened: Work, assistant: VideoAssistant, model: Manifest, server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = lambda prompt: "Well done!"
    report = examine(
        opened, tmp_path, assistant=assistant, model=model, judge=judge_of(server), attempts=2, rest_s=0.0
    )
    assert len(report.undecided) == 6
    assert "no grade for (the first: 0: no grade from 0 to 5 in the reply 'Well done!')." in report.text
    assert report.rows == ()
    assert len(server.asked) == 12
    assert {line["reply"] for line in lines(tmp_path / "verdicts-1-of-1.jsonl")} == {"Well done!"}
    with pytest.raises(ConfigError, match="no accuracy was measured, but nothing"):
        report.overall()
    server.reply = lambda prompt: "{'pred': 'no', 'score': 0}"
    again = examine(opened, tmp_path, assistant=assistant, model=model, judge=judge_of(server))
    assert (again.undecided, again.overall().mean, again.overall("score").mean) == ({}, 0, 0)


def test_a_judge_that_is_not_there_ends_the_run_and_one_that_is_goes_on(
    opened: Work, assistant: VideoAssistant, model: Manifest, server: JudgeServer, tmp_path: Path
) -> None:
    gone = ServerJudge(server=ChatServer(url="http://127.0.0.1:9", model="judge-1"), at_once=1)
    given = {"assistant": assistant, "model": model}
    with pytest.raises(
        ConfigError, match=r"not reached for 5 items in a row \(not reached .*refused.*are kept"
    ):
        examine(opened, tmp_path, judge=gone, attempts=1, **given)
    assert len(lines(tmp_path / "verdicts-1-of-1.jsonl")) == 5
    told = score([tmp_path]).text
    assert "5 items are not scored in what the judge gave no grade for (the first: 0: not reached" in told
    server.reply = lambda prompt: "{'pred': 'yes', 'score': 5}"
    assert examine(opened, tmp_path, judge=judge_of(server), **given).overall().mean == 100
    assert len(lines(tmp_path / "verdicts-1-of-1.jsonl")) == 5 + 6


def test_two_answers_are_judged_together_and_five_axes_each_by_itself(
    written: Written,
    clips: Path,
    assistant: VideoAssistant,
    model: Manifest,
    server: JudgeServer,
    tmp_path: Path,
) -> None:
    server.reply = lambda prompt: "{''score': 3}"
    pairs = prepare("videochatgpt-consistency", [written("videochatgpt-consistency")], clips)
    report = examine(pairs, tmp_path / "pairs", assistant=assistant, model=model, judge=judge_of(server))
    assert report.overall("consistency").mean == 3
    assert len(lines(tmp_path / "pairs" / "answers-1-of-1.jsonl")) == 12
    said = server.asked[0]["messages"][1]["content"]
    assert "Question 2: Once more: " in said
    assert "Predicted Answer to Question 2: " in said
    server.reply = lambda prompt: "{'score': 2}" if "detail orientation" in prompt else "{'score': 5}"
    generic = prepare("videochatgpt-generic", [written("videochatgpt-generic")], clips)
    report = examine(generic, tmp_path / "generic", assistant=assistant, model=model, judge=judge_of(server))
    told = {name: report.overall(name).mean for name in ("correctness", "detail", "context")}
    assert told == {"correctness": 5, "detail": 2, "context": 5}


def test_the_truth_of_the_world_marks_open_answers_without_a_server(
    opened: Work, assistant: VideoAssistant, model: Manifest, tmp_path: Path
) -> None:
    report = examine(opened, tmp_path, assistant=assistant, model=model, judge=WorldJudge())
    items = lines(tmp_path / "items.jsonl")
    right = sum(one["answers"][0]["answer"] == one["truth"] for one in items)
    assert right > 0
    assert report.overall().mean == 100 * right / 6


def test_a_judge_is_refused_where_it_is_missing_superfluous_or_without_a_key(
    choice: Work,
    opened: Work,
    assistant: VideoAssistant,
    model: Manifest,
    server: JudgeServer,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="msrvttqa is marked by a judge; give --judge URL"):
        examine(opened, tmp_path, assistant=assistant, model=model)
    with pytest.raises(ConfigError, match="videomme is marked by a parser; leave --judge out"):
        examine(choice, tmp_path, assistant=assistant, model=model, judge=WorldJudge())
    with pytest.raises(ConfigError, match=r"judge https://api\.example\.org/v1: no key; set OPENAI_API_KEY"):
        ChatServer(url="https://api.example.org/v1", model="judge-1")
    server.reply = lambda prompt: 401
    with pytest.raises(ConfigError, match="the judge answered 401 Unauthorized; see the address"):
        examine(opened, tmp_path, assistant=assistant, model=model, judge=judge_of(server))


def test_the_bootstrap_draws_whole_videos() -> None:
    dice = random.Random(0)
    alone_marks = [(f"video {number}", float(dice.random() < 0.5)) for number in range(200)]
    tenfold = [
        (f"video {number // 10}", mark) for number, mark in enumerate(sorted(m for _, m in alone_marks))
    ]
    single, clustered = bootstrap(alone_marks), bootstrap(tenfold)
    share = np.mean([mark for _, mark in alone_marks])
    # Alone: the normal approximation. In tens that agree: the error of 20 draws, not of 200.
    spread = 1.96 * np.sqrt(share * (1 - share) / 200)
    assert single.high - single.low == pytest.approx(2 * spread, rel=0.1)
    assert clustered.high - clustered.low == pytest.approx(2 * spread * np.sqrt(10), rel=0.15)
    assert single.mean == clustered.mean == pytest.approx(share)
    assert bootstrap([("one", 1.0), ("one", 0.0)]).low == 0.5
