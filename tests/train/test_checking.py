"""`train check` opens every medium, counts tokens and goes on after a problem."""

import json
from pathlib import Path

import pytest

from llava_next_video.errors import DataError
from llava_next_video.train.checking import check_data
from llava_next_video.train.recipe import DataSettings

FRAMES = DataSettings(frames=3)


def test_good_data_has_totals_and_no_problems(media: Path, checkpoint: Path) -> None:
    done: list[int] = []
    report = check_data(media / "samples.json", checkpoint, FRAMES, workers=2, progress=done.append)
    assert (report.samples, report.media, report.text_only, report.problems) == (12, 8, 0, ())
    # Eight questions about clips of 3 x 2 x 2 visual tokens, four pictures of 16 + 4 x 5.
    assert report.visual == 8 * 12 + 4 * 36
    assert done == list(range(1, 13))
    assert report.text.splitlines()[-1] == "0 samples would be dropped"


def test_each_problem_is_one_line_and_the_rest_is_still_looked_at(
    media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    good = {"caption": "A dog.", "video": str(media / "clip0")}
    rows = [
        good,
        {"caption": "A dog.", "video": "broken.mp4"},
        {"caption": "A dog.", "video": "missing.mp4"},
        {"conversations": [{"from": "human", "value": "<video>\nWhy?"}, {"from": "gpt", "value": "So."}]},
        {"question": "Why?"},
        {"caption": "word " * 5000, "video": str(media / "clip0")},
        {"prompt": "Why?", "chosen": "So.", "rejected": "word " * 5000},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check_data(path, checkpoint, FRAMES)
    assert (report.samples, report.text_only) == (8, 1)
    lines = [problem.removeprefix(f"{path}:") for problem in report.problems]
    assert [line.split(":")[0] for line in lines] == ["2", "3", "4", "5", "6", "7"]
    for line, word in zip(
        lines, ["broken.mp4", "missing.mp4", "1 <image>", "no format", "4096 fit", "4096 fit"], strict=True
    ):
        assert word in line
    assert report.text.count("\n") == 2 + len(lines)


def test_a_line_that_is_no_json_is_a_problem_with_its_line(
    media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"caption": "A dog.", "video": str(media / "clip0")}) + '\n{"caption": \n')
    report = check_data(path, checkpoint, FRAMES)
    assert report.samples == 2
    assert report.problems[0].startswith(f"{path}:2: ")


def test_a_file_that_is_no_data_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        check_data(tmp_path / "missing.json", checkpoint)
