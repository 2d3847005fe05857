"""Every spelling of a training sample becomes the same record."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from llava_next_video.data.files import read_samples, write_samples
from llava_next_video.data.record import Preference, Record, Slice
from llava_next_video.errors import DataError
from llava_next_video.messages import Image, Text, Turn, Video


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one(path: Path) -> Record:
    (sample,) = read_samples(path)
    assert isinstance(sample, Record)
    return sample


def pair(path: Path) -> Preference:
    (sample,) = read_samples(path)
    assert isinstance(sample, Preference)
    return sample


def shape(sample: Record, folder: Path) -> list[tuple[str, list[str]]]:
    """Roles and parts, with media as paths under the folder."""

    def spelled(part: object) -> str:
        match part:
            case Text(text=text):
                return text
            case Image(source=source):
                return f"image {Path(str(source)).relative_to(folder)}"
            case Video(source=source):
                return f"video {Path(str(source)).relative_to(folder)}"
        raise AssertionError(part)

    return [(turn.role, [spelled(part) for part in turn.parts]) for turn in sample.turns]


ASKED = [("user", ["video clips/a.mp4", "What moves?"]), ("assistant", ["A red circle."])]


def test_llava_uses_the_image_tag_for_clips_too(tmp_path: Path) -> None:
    row = {
        "id": "a",
        "video": "clips/a.mp4",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat moves?"},
            {"from": "gpt", "value": "A red circle."},
        ],
    }
    path = tmp_path / "llava.json"
    path.write_text(json.dumps([row], indent=2))
    assert shape(one(path), tmp_path) == ASKED


@pytest.mark.parametrize(
    "row",
    [
        {
            "messages": [
                {"role": "user", "content": "<video>What moves?"},
                {"role": "assistant", "content": "A red circle."},
            ],
            "videos": ["clips/a.mp4"],
        },
        {
            "messages": [
                {"role": "user", "content": "What moves?"},
                {"role": "assistant", "content": "A red circle."},
            ],
            "videos": ["clips/a.mp4"],
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": "clips/a.mp4"}},
                        {"type": "text", "text": "What moves?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A red circle."}]},
            ]
        },
        {
            "prompt": [
                {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}]}
            ],
            "completion": [{"role": "assistant", "content": "A red circle."}],
            "videos": ["clips/a.mp4"],
        },
        {"prompt": "<video>What moves?", "completion": "A red circle.", "video": "clips/a.mp4"},
        {
            "instruction": "<video>What moves?",
            "input": "",
            "output": "A red circle.",
            "videos": ["clips/a.mp4"],
        },
    ],
    ids=["tags", "no tags", "openai parts", "trl parts", "trl text", "alpaca"],
)
def test_other_spellings_give_the_same_record(tmp_path: Path, row: object) -> None:
    assert shape(one(lines(tmp_path / "rows.jsonl", row)), tmp_path) == ASKED


def test_pictures_and_clips_of_one_row_go_to_their_own_tags(tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Is <image> in <video>?"},
            {"role": "assistant", "content": "Yes."},
        ],
        "videos": ["a.mp4"],
        "images": ["b.png"],
    }
    first = shape(one(lines(tmp_path / "rows.jsonl", row)), tmp_path)[0]
    assert first == ("user", ["Is ", "image b.png", " in ", "video a.mp4", "?"])


def test_a_clip_may_be_a_list_of_frames(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "<video>Q"}, {"role": "assistant", "content": "A"}],
        "videos": [["f/0.png", "f/1.png"]],
    }
    (medium,) = one(lines(tmp_path / "rows.jsonl", row)).media
    assert medium == Video(source=[str(tmp_path / "f/0.png"), str(tmp_path / "f/1.png")])


def test_urls_are_not_joined_to_the_root(tmp_path: Path) -> None:
    row = {"caption": "A dog.", "video": "https://example.org/a.mp4"}
    sample = one(lines(tmp_path / "rows.jsonl", row))
    assert sample.turns[0] == Turn(role="user", parts=(Video(source="https://example.org/a.mp4"),))
    assert sample.turns[1].text == "A dog."


PAIRS = {
    "hound": {
        "prompt": "<video>\nWhy?",
        "answer": "x",
        "chosen": "Good.",
        "rejected": "Bad.",
        "video": "a.mp4",
    },
    "factory": {
        "conversations": [{"from": "human", "value": "<video>Why?"}],
        "chosen": {"from": "gpt", "value": "Good."},
        "rejected": {"from": "gpt", "value": "Bad."},
        "videos": ["a.mp4"],
    },
    "swift": {
        "messages": [{"role": "user", "content": "<video>Why?"}, {"role": "assistant", "content": "Good."}],
        "rejected_response": "Bad.",
        "videos": ["a.mp4"],
    },
    "trl": {
        "chosen": [{"role": "user", "content": "<video>Why?"}, {"role": "assistant", "content": "Good."}],
        "rejected": [{"role": "user", "content": "<video>Why?"}, {"role": "assistant", "content": "Bad."}],
        "videos": ["a.mp4"],
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_preference_spelling_gives_the_same_pair(tmp_path: Path, name: str) -> None:
    sample = pair(lines(tmp_path / "pairs.jsonl", PAIRS[name]))
    assert sample.turns == (
        Turn(role="user", parts=(Video(source=str(tmp_path / "a.mp4")), Text(text="Why?"))),
    )
    assert (sample.chosen.text, sample.rejected.text) == ("Good.", "Bad.")


def test_a_dataset_info_renames_columns_and_roles(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(
        json.dumps(
            {
                "clips": {
                    "file_name": "rows.json",
                    "formatting": "sharegpt",
                    "columns": {"messages": "talk", "videos": "clips"},
                    "tags": {
                        "role_tag": "who",
                        "content_tag": "what",
                        "user_tag": "me",
                        "assistant_tag": "you",
                    },
                }
            }
        )
    )
    talk = [{"who": "me", "what": "<video>What moves?"}, {"who": "you", "what": "A red circle."}]
    (tmp_path / "rows.json").write_text(json.dumps([{"talk": talk, "clips": ["clips/a.mp4"]}]))
    assert shape(one(tmp_path), tmp_path) == ASKED
    (sample,) = read_samples(f"{tmp_path}/dataset_info.json#clips")
    assert isinstance(sample, Record)
    with pytest.raises(DataError, match=r"no data set 'clip'; did you mean 'clips'\?"):
        list(read_samples(f"{tmp_path}/dataset_info.json#clip"))


def test_a_tar_gives_media_as_slices_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    answer = [{"from": "human", "value": "<video>\nQ"}, {"from": "gpt", "value": "A"}]
    members = {
        "000.mp4": b"clip zero",
        "000.json": json.dumps({"conversations": answer, "video": "elsewhere.mp4"}).encode(),
        "001.png": b"picture one",
        "001.txt": b"A caption.\n",
    }
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    first, second = read_samples(path)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.id == "000"
    assert [turn.text for turn in first.turns] == ["Q", "A"]
    assert second.turns[1].text == "A caption."
    sources = [medium.source for sample in (first, second) for medium in sample.media]
    assert [source.read() for source in sources if isinstance(source, Slice)] == [
        b"clip zero",
        b"picture one",
    ]


def test_parquet_rows_are_read_like_json_rows(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the caption extra is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the caption extra is not installed")
    talk = [{"from": "human", "value": "<video>\nWhat moves?"}, {"from": "gpt", "value": "A red circle."}]
    table = arrow.table({"video": ["clips/a.mp4"], "image": [None], "conversations": [talk]})
    parquet.write_table(table, tmp_path / "rows.bin")
    assert shape(one(tmp_path / "rows.bin"), tmp_path) == ASKED


@pytest.mark.parametrize("spelling", ["llava", "messages"])
def test_conversations_come_back_from_the_file_they_were_written_to(tmp_path: Path, spelling: str) -> None:
    turns = (
        Turn(role="user", parts=(Video(source=str(tmp_path / "a.mp4")), Text(text="Q"))),
        Turn(role="assistant", parts=(Text(text="A"),)),
        Turn(role="user", parts=(Text(text="And?"),)),
        Turn(role="assistant", parts=(Text(text="B"),)),
    )
    path = lines(tmp_path / "in.jsonl", {"caption": "x", "video": "a.mp4"})
    sample = Record(id="7", turns=turns, place=one(path).place)
    write_samples(tmp_path / "out.json", [sample], spelling=spelling)
    again = one(tmp_path / "out.json")
    assert (again.id, again.turns) == ("7", turns)


@pytest.mark.parametrize("spelling", ["hound", "messages"])
def test_pairs_come_back_from_the_file_they_were_written_to(tmp_path: Path, spelling: str) -> None:
    sample = pair(lines(tmp_path / "in.jsonl", {"id": "p", **PAIRS["hound"]}))
    write_samples(tmp_path / "out.jsonl", [sample], spelling=spelling)
    again = pair(tmp_path / "out.jsonl")
    assert (again.id, again.turns, again.chosen, again.rejected) == (
        "p",
        sample.turns,
        sample.chosen,
        sample.rejected,
    )


GOOD = {"caption": "A dog.", "video": "a.mp4"}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            {"conversations": [{"from": "human", "value": "<video>\nQ"}, {"from": "gpt", "value": "A"}]},
            "1 <image>",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "<video><video>Q"},
                    {"role": "assistant", "content": "A"},
                ],
                "videos": ["a.mp4"],
            },
            "2 <image> or <video> tags, but 0 pictures and 1 clips",
        ),
        ({"video": "a.mp4", "question": "Q"}, r"no format has only the keys \['question', 'video'\]"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "the last turn must be the assistant's"),
        ({"conversations": [{"from": "robot", "value": "Q"}]}, "'from' is 'robot'"),
        ({"messages": [{"role": "assistant", "content": "A"}]}, "expected user and assistant in turn"),
        ({"caption": "", "video": "a.mp4"}, "has no words"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    path = lines(tmp_path / "rows.jsonl", GOOD, row)
    with pytest.raises(DataError, match=complaint) as refusal:
        list(read_samples(path))
    assert str(refusal.value).startswith(f"{path}:2: ")
    assert "\n" not in str(refusal.value)


def test_a_json_list_names_the_line_of_a_bad_element(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[\n  {"caption": "A", "video": "a.mp4"},\n\n  {"video": "b.mp4"}\n]\n')
    with pytest.raises(DataError, match=r"rows\.json:4: "):
        list(read_samples(path))
    path.write_text('[\n  {"caption": "A", "video": "a.mp4"},\n  {"caption": }\n]\n')
    with pytest.raises(DataError, match=r"rows\.json:3: "):
        list(read_samples(path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"hello", "starts with b'hello'"),
        (b'{"caption": "A"', "rows:1: "),
        (b'[{"caption": "A", "video": "a.mp4"}', "not closed"),
        (b"[1]", "expected a JSON object with a sample, got int"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        list(read_samples(tmp_path / "rows"))
    with pytest.raises(DataError, match="No such file"):
        list(read_samples(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        (
            {"formatting": "openai", "columns": {"messages": "messages", "videos": "videos"}},
            {
                "messages": [
                    {"role": "user", "content": "<video>What moves?"},
                    {"role": "assistant", "content": "A red circle."},
                ],
                "videos": ["clips/a.mp4"],
            },
        ),
        (
            {"columns": {"prompt": "q", "response": "a", "videos": "v"}},
            {"q": "<video>What moves?", "a": "A red circle.", "v": ["clips/a.mp4"], "note": "unread"},
        ),
    ],
    ids=["openai", "alpaca"],
)
def test_a_dataset_info_reads_each_formatting(tmp_path: Path, entry: dict[str, object], row: object) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"d": {"file_name": "rows.json", **entry}}))
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    assert shape(one(tmp_path / "dataset_info.json"), tmp_path) == ASKED


@pytest.mark.parametrize("formatting", ["sharegpt", "alpaca"])
def test_a_dataset_info_reads_rankings(tmp_path: Path, formatting: str) -> None:
    row = {
        "sharegpt": PAIRS["factory"],
        "alpaca": {"instruction": "<video>Why?", "chosen": "Good.", "rejected": "Bad.", "videos": ["a.mp4"]},
    }[formatting]
    entry = {"file_name": "rows.json", "formatting": formatting, "ranking": True}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"d": entry}))
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    sample = pair(tmp_path)
    assert [turn.text for turn in (*sample.turns, sample.chosen, sample.rejected)] == [
        "Why?",
        "Good.",
        "Bad.",
    ]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"hf_hub_url": "org/data"}, "'hf_hub_url' is not read here"),
        ({}, "no 'file_name'"),
        ({"file_name": "a", "formatting": "csv"}, "formatting is 'csv'"),
        ({"file_name": "a", "columns": {"video": "v"}}, "column 'video' is not read here"),
        ({"file_name": "a", "tags": {"role": "v"}}, "tag 'role' is not read here"),
    ],
)
def test_what_a_dataset_info_says_in_vain_is_refused(tmp_path: Path, entry: object, complaint: str) -> None:
    (tmp_path / "dataset_info.json").write_text(json.dumps({"d": entry}))
    with pytest.raises(DataError, match=complaint):
        list(read_samples(tmp_path))
