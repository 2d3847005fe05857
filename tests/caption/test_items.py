"""Every kind of input becomes a list of videos, or one sentence with file and line."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest

from llava_next_video.caption import list_items
from llava_next_video.caption.cells import Cell, Missing
from llava_next_video.data.record import Slice
from llava_next_video.errors import ConfigError, DataError, MediaError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.MP4", "a.webm", "deep/c.mov", ".hidden/d.mp4", "notes.txt.bak"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def ids(*inputs: object, prompt: str = "Describe.") -> list[str]:
    return [item.id for item in list_items([str(given) for given in inputs], prompt)]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_folder_is_searched_to_its_depths_without_hidden_files(folder: Path) -> None:
    assert ids(folder) == ["a.webm", "b.MP4", "deep/c.mov"]
    assert list_items([str(folder)], "Why?")[0].source == str(folder / "a.webm")


def test_globs_files_and_urls_may_stand_beside_each_other(folder: Path) -> None:
    found = ids(folder / "*.MP4", folder / "a.webm", "https://example.org/e.mp4")
    assert found == [str(folder / "b.MP4"), str(folder / "a.webm"), "https://example.org/e.mp4"]


def test_manifest_paths_are_relative_to_the_manifest(folder: Path) -> None:
    lines = [{"id": 7, "path": "a.webm"}, {"video": "/b.mp4", "duration": 2.5}]
    for name, text in {
        "list.txt": "# two videos\na.webm\n\n/b.mp4\n",
        "list.csv": "video_id,path,duration_s\n7,a.webm,\n,/b.mp4,2.5\n",
        "list.tsv": "id\tvideo\n7\ta.webm\n\t/b.mp4\n",
        "list.jsonl": "\n".join(map(json.dumps, lines)),
        "list.json": json.dumps(lines),
    }.items():
        items = list_items([str(write(folder / name, text))], "Describe.")
        assert [item.source for item in items] == [str(folder / "a.webm"), "/b.mp4"]
        assert [item.id for item in items] == ["a.webm" if name == "list.txt" else "7", "/b.mp4"]
        if name in ("list.csv", "list.jsonl"):
            assert [item.seconds for item in items] == [None, 2.5]


def test_bytes_in_parquet_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    structs = pyarrow.array([{"bytes": b"three", "path": None}, {"bytes": b"four", "path": None}])
    table = pyarrow.table({"id": ["1", "2"], "mp4": [b"one", b"two"], "note": ["x", None]})
    parquet.write_table(table, tmp_path / "flat.parquet", row_group_size=1)
    parquet.write_table(pyarrow.table({"id": ["3", "4"], "video": structs}), tmp_path / "struct.parquet")
    items = list_items([str(tmp_path / "*.parquet")], "Describe.")
    cells = [item.source for item in items]
    assert [cell.read() for cell in cells if isinstance(cell, Cell)] == [b"one", b"two", b"three", b"four"]
    (tmp_path / "flat.parquet").unlink()
    with pytest.raises(MediaError, match=r"flat\.parquet"):
        Cell(file=str(tmp_path / "flat.parquet"), group=9, row=0, column="mp4").read()


def test_webdataset_tars_are_read_in_place(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name, content in {"x.mp4": b"clip", "x.json": b'{"title": "walk"}', "y.mp4": b"other"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ConfigError, match=r"shard\.tar:1: the prompt asks for \{name\}; this row has id"):
        ids(tmp_path, prompt="Describe {name}.")
    items = list_items([str(tmp_path)], "Describe.")
    assert [(item.id, item.source.read()) for item in items if isinstance(item.source, Slice)] == [
        ("x", b"clip"),
        ("y", b"other"),
    ]


def test_prompts_take_fields_and_a_row_may_bring_its_own(tmp_path: Path) -> None:
    manifest = write(
        tmp_path / "list.csv", "id,path,title,prompt\n1,a.mp4,a walk,\n2,b.mp4,a run,What runs?\n"
    )
    prompts = [item.prompt for item in list_items([str(manifest)], "Describe {title} as {{JSON}}.")]
    assert prompts == ["Describe a walk as {JSON}.", "What runs?"]
    own = [item.own_prompt for item in list_items([str(manifest)], "Describe {title}.")]
    assert own == [False, True]
    with pytest.raises(
        ConfigError, match=r"list\.csv:2: the prompt asks for \{name\}; .* has id, path, title$"
    ):
        ids(manifest, prompt="Describe {name}.")


@pytest.mark.parametrize("prompt", ["{", "{title!r}", "{0}", "{}", "{a.b}", "{title:>9}", "}"])
def test_braces_that_are_no_field_are_refused_before_anything_is_read(prompt: str) -> None:
    with pytest.raises(ConfigError, match=r"write \{\{ and \}\} for braces"):
        ids("nowhere", prompt=prompt)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("l.jsonl", '{"path": "a.mp4"}\n{"path": \n', r"l\.jsonl:2: Expecting value"),
        (
            "l.jsonl",
            '{"path": "a.mp4"}\n{"title": "x"}\n',
            r"l\.jsonl:2: no video; the row has only \['title'\]",
        ),
        (
            "l.jsonl",
            '{"path": "a.mp4", "duration": "long"}\n',
            r"l\.jsonl:1: duration is 'long'; expected seconds",
        ),
        ("l.jsonl", '{"path": 3}\n', r"l\.jsonl:1: the video is of type int; expected a path"),
        ("l.csv", "id,path\n1,a.mp4\n2\n", r"l\.csv:3: expected 2 fields, as the first line has"),
        ("l.csv", 'id,path\n1,"a.mp4\n', r"l\.csv:2: unexpected end of data"),
        ("l.csv", "id,path\n1,a.mp4\n1,b.mp4\n", r"l\.csv:3: the id '1' stands for .*a\.mp4 and .*b\.mp4"),
        ("l.bin", "what is this", r"l\.bin: starts with b'what is this'"),
    ],
)
def test_a_bad_line_is_one_sentence_with_file_and_line(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    with pytest.raises(DataError, match=told) as caught:
        ids(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"a.mp4\n\xff\xfe.mp4\n")
    with pytest.raises(DataError, match=r"l\.txt:2: not UTF-8"):
        ids(tmp_path / "l.txt")


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no videos found in .*; expected a folder or glob"):
        ids(tmp_path)
    with pytest.raises(ConfigError, match=r"nowhere: no such file or folder"):
        ids(tmp_path / "nowhere")


def test_a_field_is_empty_in_every_kind_of_list(tmp_path: Path) -> None:
    rows = [{"id": "1", "path": "a.mp4", "title": "a walk"}, {"id": "2", "path": "b.mp4", "title": " "}]
    void = {**rows[1], "title": None}
    lists = [
        write(tmp_path / "blank.jsonl", "\n".join(map(json.dumps, rows))),
        write(tmp_path / "null.jsonl", "\n".join(map(json.dumps, [rows[0], void]))),
        tmp_path / "list.parquet",
    ]
    parquet.write_table(pyarrow.Table.from_pylist([rows[0], void]), lists[-1])
    for path in lists:
        _, item = list_items([str(path)], "Describe {title}.")
        assert isinstance(item.source, Missing)
        assert (
            item.source.told
            == f"{path}:2: the prompt asks for {{title}}, which is empty in this row; fill it in"
        )


def test_an_empty_column_and_a_sample_without_a_video_are_errors_of_their_own(tmp_path: Path) -> None:
    manifest = write(tmp_path / "list.csv", "id,path,title\n1,a.mp4,a walk\n2,b.mp4,\n")
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name, content in {"x.json": b'{"title": "walk"}', "y.mp4": b"clip", "y.json": b"{}"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    items = list_items([str(manifest), str(tmp_path / "shard.tar")], "Describe {title}.")
    told = {item.id: item.source.told for item in items if isinstance(item.source, Missing)}
    assert told == {
        "2": f"{manifest}:3: the prompt asks for {{title}}, which is empty in this row; fill it in",
        "x": f"{tmp_path / 'shard.tar'}:1: no video in this sample; it has id, title",
        "y": f"{tmp_path / 'shard.tar'}:2: the prompt asks for {{title}}; this row has id",
    }
    assert {item.id: item.prompt for item in items}["1"] == "Describe a walk."
    with pytest.raises(MediaError, match="no video in this sample"):
        next(item.source for item in items if item.id == "x").read()  # type: ignore[union-attr]
