"""An id is in one part, whoever writes it, and however often."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.caption.conftest import rows_of

from llava_next_video.caption.ledger import Ledger, journal_of, read_journal
from llava_next_video.caption.row import NAMES, Row
from llava_next_video.errors import DataError


def row(id: str, *, error: str | None = None, caption: str = "A dog.") -> Row:
    return Row(
        id=id,
        source=f"{id}.mp4",
        prompt="Why?",
        finish_reason="error" if error else "stop",
        model="m",
        fingerprint="f",
        attempts=1,
        finished_at="2026-01-01T00:00:00+00:00",
        frame_times_s=(0.0, 0.5),
        flags=("empty",),
        caption=None if error else caption,
        error=error,
        error_class="MediaError" if error else None,
    )


def ids(folder: Path) -> list[object]:
    return sorted(str(found["id"]) for found in rows_of(folder))


def test_rows_come_back_from_parquet_and_jsonl_as_they_were(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "me")
    ledger.keep(row("a", caption='"Süß",\nsaid 犬'))
    ledger.keep(row("b", error="broken"))
    ledger.close()
    (part,) = tmp_path.glob("*.parquet")
    (view,) = (tmp_path / "_jsonl").iterdir()
    assert tuple(parquet.read_table(part).column_names) == NAMES
    assert [Row.from_json(line) for line in view.read_text().splitlines()] == [
        row("a", caption='"Süß",\nsaid 犬'),
        row("b", error="broken"),
    ]
    assert [json.loads(line) for line in view.read_text().splitlines()] == rows_of(tmp_path)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["keep", "publish", "adopt"]), st.integers(0, 5)))
)
def test_three_writers_in_any_order_never_write_an_id_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    writers = [Ledger(folder, f"writer-{number}") for number in range(3)]
    kept: set[str] = set()
    for writer, verb, number in steps:
        if verb == "keep":
            writers[writer].keep(row(f"id-{number}"))
            kept.add(f"id-{number}")
        elif verb == "publish":
            writers[writer].publish()
        else:  # takes a living one for dead
            writers[writer].adopt(f"writer-{number % 3}")
    for writer in writers:
        writer.close()
    found = [str(found["id"]) for found in rows_of(folder)] if kept else []
    assert sorted(found) == sorted(kept)
    shutil.rmtree(folder)


def test_a_kill_between_part_and_journal_leaves_no_double(tmp_path: Path) -> None:
    dead = Ledger(tmp_path, "dead")
    dead.keep(row("a"))
    journal = journal_of(tmp_path, "dead").read_bytes()
    dead.publish()
    journal_of(tmp_path, "dead").write_bytes(journal)  # as it was before it was emptied
    heir = Ledger(tmp_path, "heir")
    assert heir.adopt("dead") == 0
    heir.close()
    assert ids(tmp_path) == ["a"]


def test_a_journal_that_was_cut_short_gives_its_whole_rows(tmp_path: Path) -> None:
    dead = Ledger(tmp_path, "dead")
    for id in "abc":
        dead.keep(row(id))
    path = journal_of(tmp_path, "dead")
    os.truncate(path, path.stat().st_size - 10)
    assert [found.id for found in read_journal(path)] == ["a", "b"]


def test_forgotten_errors_are_gone_from_parts_and_views_and_may_come_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "me")
    ledger.keep(row("good"))
    ledger.keep(row("bad", error="broken"))
    ledger.publish()
    assert ledger.forget_errors() == 1
    assert "bad" not in ledger
    assert "good" in ledger
    assert ids(tmp_path) == ["good"]
    ledger.keep(row("bad"))
    ledger.close()
    assert ids(tmp_path) == ["bad", "good"]
    views = "".join(view.read_text() for view in (tmp_path / "_jsonl").iterdir())
    assert [json.loads(line)["id"] for line in views.splitlines()] == ["good", "bad"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-000000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"part-000000\.parquet: a damaged part"):
        Ledger(tmp_path, "me")


def test_reading_what_is_done_reads_ids_only(tmp_path: Path) -> None:
    """What a resumed run reads grows with the ids, not with the captions."""
    ledger = Ledger(tmp_path, "me")
    for number in range(200):
        ledger.keep(row(f"id-{number:05d}", caption=os.urandom(2000).hex()))
    ledger.close()
    heard: list[Path] = []
    before = _read_bytes()
    again = Ledger(tmp_path, "again", heard=heard.append)
    assert again.count == 200
    assert len(heard) == 1
    assert _read_bytes() - before < (tmp_path / "part-000000.parquet").stat().st_size / 3


def _read_bytes() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar"):
            return int(line.split()[1])
    raise RuntimeError("no rchar")


def test_a_part_is_written_without_loading_pandas_and_reads_back_as_it_was(tmp_path: Path) -> None:
    # In a process of its own: whether pandas was loaded is asked of a fresh interpreter.
    program = (
        "import sys; from pathlib import Path; from llava_next_video.caption.row import Row;"
        "from llava_next_video.caption.table import read_rows, write_rows;"
        "same = dict(source='a \\u2028 \\U0001f3a5', prompt='p', model='m', fingerprint='f',"
        "finished_at='t');"
        "rows = [Row(id='1', finish_reason='stop', attempts=1, frame_times_s=(0.1, 1 / 3),"
        "caption='a', **same),"
        "Row(id='2', finish_reason='error', attempts=4, flags=('empty',), duration_s=2 / 3, **same)];"
        "part = Path(sys.argv[1]); write_rows(part, rows);"
        "print(read_rows(part) == rows, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "part.parquet")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "False"]
