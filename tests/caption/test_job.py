"""A folder of captions is for one job; what went wrong in it is told, tried again, or counted."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from tests.caption.conftest import plain_clip, rows_of
from tests.caption.teller import Teller, teller

from llava_next_video.caption import Figures, Settings, caption, estimate, list_items
from llava_next_video.caption.claims import Claims
from llava_next_video.caption.figures import Stopwatch
from llava_next_video.caption.items import Item
from llava_next_video.caption.job import open_output
from llava_next_video.caption.outcome import Model, Seen, Tell, TransientError
from llava_next_video.caption.run import Room
from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import ConfigError
from llava_next_video.media import write_clip

ONE = Settings(workers=1, back_off_s=0.01)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, grey in enumerate((20, 120, 220)):
        plain_clip(folder / f"{number}.mp4", [grey] * 3)
    return folder


def test_another_model_is_refused_until_a_new_run_moves_the_captions_aside(
    three: Path, tmp_path: Path
) -> None:
    items, out, log = list_items([str(three)], "What colour?"), tmp_path / "out", tmp_path / "log"
    caption(items, out, teller(log), ONE)
    with pytest.raises(ConfigError, match=r"captions made with colour 'mean', not 'hue'.*--new-run"):
        caption(items, out, teller(log, colour="hue"), ONE)
    figures = caption(items, out, teller(log, colour="hue"), ONE, new_run=True)
    assert figures.captioned == 3
    assert len(rows_of(out)) == len(rows_of(out / "_earlier-1")) == 3
    assert json.loads((out / "_earlier-1" / "_job.json").read_text())["colour"] == "mean"
    assert len(log.read_text().split()) == 6


@pytest.mark.slow
def test_a_new_run_is_refused_while_another_process_works(three: Path, tmp_path: Path) -> None:
    items, out = list_items([str(three)], "What colour?"), tmp_path / "out"
    caption(items, out, teller(tmp_path / "log"), ONE)
    other = Claims(out)
    with pytest.raises(ConfigError, match=f"{other.name} works on it"):
        caption(items, out, teller(tmp_path / "log"), ONE, new_run=True)
    other.close()


def test_a_folder_of_somebody_elses_parquet_is_left_alone(three: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="parquet files that are not this command's"):
        caption(list_items([str(three)], "?"), tmp_path, teller(tmp_path / "log"), ONE)


def test_an_output_that_cannot_be_written_is_one_sentence(three: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        caption(list_items([str(three)], "?"), tmp_path / "file" / "out", teller(tmp_path / "log"), ONE)


class Moody(Teller):
    """Fails on each video as often as it was told to."""

    failures: dict[str, int]

    def ask(self, item: Item, seen: Seen, tell: Tell) -> None:
        if self.failures.get(item.id, 0):
            self.failures[item.id] -= 1
            raise TransientError(f"{item.id}: the network hiccuped") from TimeoutError()
        super().ask(item, seen, tell)


def moody(log: Path, **failures: int) -> Model:
    def load() -> Moody:
        describer = Moody(log=log)
        describer.failures = {f"{number[1:]}.mp4": count for number, count in failures.items()}
        return describer

    return Model(name="moody", identity={}, load=load)


def test_passing_errors_are_tried_again_and_lasting_ones_become_rows(three: Path, tmp_path: Path) -> None:
    (three / "3.mp4").write_text("no clip at all")
    items, out = list_items([str(three)], "What colour?"), tmp_path / "out"
    figures = caption(items, out, moody(tmp_path / "log", _0=2, _1=99), ONE)
    rows = {row["id"]: row for row in rows_of(out)}
    assert (rows["0.mp4"]["attempts"], rows["0.mp4"]["error"]) == (3, None)
    assert (rows["1.mp4"]["attempts"], rows["1.mp4"]["error_class"]) == (4, "TimeoutError")
    assert rows["1.mp4"]["error"] == "1.mp4: the network hiccuped"
    assert (rows["3.mp4"]["attempts"], rows["3.mp4"]["error_class"]) == (1, "MediaError")
    assert (figures.captioned, figures.errors, figures.retries) == (2, 2, 2 + 3)
    assert caption(items, out, moody(tmp_path / "log"), ONE).done == 0
    figures = caption(items, out, moody(tmp_path / "log"), ONE, retry_errors=True)
    assert (figures.captioned, figures.errors) == (1, 1)
    assert sorted(str(row["id"]) for row in rows_of(out)) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]


@pytest.mark.slow
def test_a_bug_in_one_video_costs_that_video(three: Path, tmp_path: Path) -> None:
    class Buggy(Teller):
        def see(self, item: Item, decoder: Decoder) -> Seen:
            if item.id == "1.mp4":
                raise ZeroDivisionError("division by zero")
            return super().see(item, decoder)

    model = Model(name="buggy", identity={}, load=lambda: Buggy(log=tmp_path / "log"))
    figures = caption(list_items([str(three)], "?"), tmp_path / "out", model, ONE)
    assert (figures.captioned, figures.errors) == (2, 1)
    assert [row["error"] for row in rows_of(tmp_path / "out") if row["error"]] == [
        "ZeroDivisionError: division by zero"
    ]


def test_a_row_says_what_was_seen_and_what_it_took(three: Path, tmp_path: Path) -> None:
    caption(list_items([str(three)], "What colour?"), tmp_path / "out", teller(tmp_path / "log"), ONE)
    row = next(row for row in rows_of(tmp_path / "out") if row["id"] == "0.mp4")
    assert row["source"] == str(three / "0.mp4")
    assert row["duration_s"] == pytest.approx(6 / 12)
    assert row["frame_times_s"] == pytest.approx([0, 1 / 12, 3 / 12, 4 / 12])  # 4 of 6, evenly
    assert (row["prompt"], row["model"], row["finish_reason"]) == ("What colour?", "teller", "stop")
    assert (row["prompt_tokens"], row["visual_tokens"], row["completion_tokens"]) == (10, 4, 6)
    assert float(str(row["read_ms"])) > 0


def test_videos_inside_tars_and_tables_are_read_from_there(three: Path, tmp_path: Path) -> None:
    contents = {path.name: path.read_bytes() for path in sorted(three.iterdir())}
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(three / "0.mp4", "zero.mp4")
    table = pyarrow.table({"id": ["one", "two"], "video": [contents["1.mp4"], contents["2.mp4"]]})
    parquet.write_table(table, tmp_path / "table.parquet")
    items = list_items([str(tmp_path / "shard.tar"), str(tmp_path / "table.parquet")], "What colour?")
    caption(items, tmp_path / "out", teller(tmp_path / "log"), ONE, report=False)
    rows = {str(row["id"]): row for row in rows_of(tmp_path / "out")}
    told = [int(str(rows[id]["caption"]).split()[0]) for id in ("zero", "one", "two")]
    assert told == pytest.approx([20, 120, 220], abs=8)  # the codec's rounding
    assert rows["one"]["source_sha256"] == hashlib.sha256(contents["1.mp4"]).hexdigest()
    assert str(rows["zero"]["source"]) == f"zero.mp4 in {tmp_path / 'shard.tar'}"


def test_a_copy_of_another_size_gets_the_caption_of_the_first(three: Path, tmp_path: Path) -> None:
    write_clip(three / "small.mp4", np.full((6, 18, 24, 3), 120, np.uint8), 12)  # 1.mp4, smaller
    near = Settings(workers=1, dedupe="near")
    figures = caption(
        list_items([str(three)], "?"),
        tmp_path / "out",
        teller(tmp_path / "log", look=True),
        near,
        report=False,
    )
    rows = {str(row["id"]): row for row in rows_of(tmp_path / "out")}
    assert (figures.captioned, figures.duplicates) == (3, 1)
    assert rows["small.mp4"]["duplicate_of"] == "1.mp4"
    assert rows["small.mp4"]["caption"] == rows["1.mp4"]["caption"]
    assert rows["small.mp4"]["source_sha256"] != rows["1.mp4"]["source_sha256"]


def test_the_report_stands_alone_and_escapes_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    plain_clip(tmp_path / "videos" / "<b>.mp4", (20, 20, 20))
    (tmp_path / "videos" / "cut.mp4").write_bytes(b"no clip")
    caption(list_items([str(tmp_path / "videos")], "?"), tmp_path / "out", teller(tmp_path / "log"), ONE)
    page = (tmp_path / "out" / "_report.html").read_text()
    assert "<b>.mp4" not in page
    assert "&lt;b&gt;.mp4" in page
    assert page.count("<svg") == 3  # throughput, lengths, errors
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_room_lets_one_thing_in_whatever_its_size() -> None:
    room = Room(100)
    room.take(500)
    room.give_back(500)
    room.take(60)
    room.take(40)
    assert room.held == 100


def test_the_estimate_is_the_rate_times_a_million() -> None:
    figures = Figures(total=10, earlier=0, captioned=10, seconds=8.64)
    assert estimate(figures) == (
        "1,000,000 videos like these would take this machine 10 days, and 10 like it a day"
    )
    assert figures.per_second == pytest.approx(10 / 8.64)
    failed = Figures(total=10, earlier=0, errors=10, seconds=8.64)
    assert estimate(failed) == "nothing was captioned, so there is nothing to estimate from"


def test_a_stopwatch_counts_only_after_the_first_came() -> None:
    watch = Stopwatch()
    assert watch.read() == (0.0, 0.0)
    watch.enter()
    watch.enter()
    watch.leave()
    watch.leave()
    empty_s, inside_s = watch.read()
    assert empty_s >= 0
    assert inside_s > 0


def test_another_option_is_told_by_its_flag(tmp_path: Path) -> None:
    open_output(tmp_path, {"options": {"max_new_tokens": 24, "seed": None}})
    with pytest.raises(ConfigError, match=r"captions made with --max-tokens 24, not 9; name another"):
        open_output(tmp_path, {"options": {"max_new_tokens": 9, "seed": None}})
