"""Every benchmark reads its published format and asks in its published words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evaluate.toy_sets import FORMATS, Toy, lettered

from llava_next_video.errors import ConfigError, DataError
from llava_next_video.evaluate import BENCHMARKS, Work, prepare
from llava_next_video.media import Limits, Sampling

Written = Callable[[str], Path]

OPENING = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with "
    "only the letter (A, B, C, or D) of the correct option.\n"
)
OPENING_WITH_SUBTITLES = OPENING.replace("the video.", "the video and the subtitles.")
DIRECTLY = "\nAnswer with the option's letter from the given choices directly."


def test_every_benchmark_is_tested_on_a_toy_set_of_its_format() -> None:
    assert FORMATS.keys() == BENCHMARKS.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_set_is_read_with_its_truth_and_every_protocol_can_ask_it(
    name: str, written: Written, toys: list[Toy], clips: Path
) -> None:
    path = written(name)
    for protocol in BENCHMARKS[name].protocols:
        work = prepare(name, [path], clips, protocol=protocol.name)
        assert len(work.items) == len(toys)
        for item, toy in zip(work.items, toys, strict=True):
            assert work.videos[item.video].resolve() == clips / f"{toy.video}.mp4"
            choice = bool(item.options)
            told = item.options["ABCDE".index(item.truth)] if choice else item.truth
            right = toy.caption if name == "video-detail" else toy.answer
            assert told.removeprefix(f"{item.truth}. ") == right
            prompts = work.prompts(item)
            assert len(prompts) == len(item.questions)
            assert all(option in prompts[0] for option in item.options)
        assert (work.protocol.parser is None) == (not work.items[0].options)


def first(work: Work) -> str:
    return work.prompts(work.items[0])[0]


def test_the_words_of_video_mme_are_the_published_ones(
    written: Written, toys: list[Toy], clips: Path
) -> None:
    files = [written("videomme")]
    lines = "\n".join(lettered(toys[0].options[:4]))
    asked = f"{toys[0].question}\n{lines}\n"
    work = {
        name: prepare("videomme", files, clips, protocol=name)
        for name in ("videomme-paper", "lmms-eval", "lmms-eval-llava")
    }
    assert first(work["videomme-paper"]) == f"{OPENING}{asked}The best answer is:"
    assert first(work["lmms-eval"]) == f"{OPENING_WITH_SUBTITLES}{asked}{DIRECTLY}"
    assert first(work["lmms-eval-llava"]) == f"{OPENING_WITH_SUBTITLES}{asked}The best answer is:"
    assert prepare("videomme", files, clips).protocol.name == "videomme-paper"


def test_the_words_of_the_other_sets_are_the_published_ones(
    written: Written, toys: list[Toy], clips: Path
) -> None:
    toy = toys[0]
    three = "\n".join(f"({letter}) {one}" for letter, one in zip("ABC", toy.options, strict=False))
    assert first(prepare("mvbench", [written("mvbench")], clips)) == (
        f"Question:{toy.question}\nOption:\n{three}\nOnly give the best option.\n"
    )
    five = "\n".join(lettered(toy.options))
    assert first(prepare("nextqa", [written("nextqa")], clips)) == f"{toy.question}\n{five}{DIRECTLY}"
    assert first(prepare("egoschema", [written("egoschema")], clips)) == f"{toy.question}\n{five}{DIRECTLY}"
    bare = toy.question.rstrip("?.").lower()
    assert first(prepare("activitynetqa", [written("activitynetqa")], clips)) == (
        f"{bare.capitalize()}? Answer the question using a single word or phrase."
    )


def test_subtitles_are_those_of_the_frames_that_are_seen(
    written: Written, toys: list[Toy], clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "subtitles"
    folder.mkdir()
    (folder / "toy0.srt").write_text(
        '1\n00:00:00,000 --> 00:00:00,010\n<font color="white" size=".72c">At the start</font>\n\n'
        '2\n00:01:00,000 --> 00:01:02,000\n<font color="white" size=".72c">Long after</font>\n'
    )
    work = prepare("videomme", [written("videomme")], clips, subtitles=folder, sampling=Sampling(frames=2))
    said = [
        work.conversation(item, first(work), Limits())[0].text for item in (work.items[0], work.items[-1])
    ]
    told = "This video's subtitles are listed below: \n{}\n" + OPENING_WITH_SUBTITLES
    assert said[0].startswith(told.format("At the start"))
    assert said[1].startswith(told.format("No subtitles available"))
    before = work.manifest
    (folder / "toy1.srt").write_text("1\n00:00:00,000 --> 00:00:09,000\nHere\n")
    assert replace(work, subtitles=folder).manifest != before


def test_subtitles_that_cannot_be_read_are_named_before_a_model_is_loaded(
    written: Written, clips: Path, tmp_path: Path
) -> None:
    table = written("videomme")
    for content, told in (
        (b"1\n0 to 9\nHere\n", r"toy1\.srt: '0 to 9'; expected 00:00:01,000 -->"),
        (
            "1\n00:00:00,000 --> 00:00:09,000\nÀ côté\n".encode("latin-1"),
            r"toy1\.srt: .*; give an SRT file in UTF-8",
        ),
    ):
        (tmp_path / "toy1.srt").write_bytes(content)
        with pytest.raises(DataError, match=told):
            prepare("videomme", [table], clips, subtitles=tmp_path)


def test_what_a_table_lacks_or_says_wrong_is_named_with_its_line(
    written: Written, clips: Path, tmp_path: Path
) -> None:
    rows = json.loads(written("mvbench").read_text())

    def told(change: dict[str, object], drop: str = "") -> str:
        path = tmp_path / "task.json"
        values = {key: value for key, value in {**rows[0], **change}.items() if key != drop}
        path.write_text(json.dumps([values]))
        with pytest.raises(DataError) as refused:
            prepare("mvbench", [path], clips)
        return str(refused.value).removeprefix(f"{path}:1: ")

    assert told({}, drop="candidates") == "no column 'candidates'; found answer, question, video"
    assert told({"candidates": "a, b"}) == "'candidates' is str; expected a list of texts"
    assert told({"answer": "none"}).startswith("the answer 'none' is none of the candidates [")
    assert "asks about a part of its video (start, end); cut the video" in told({"start": 1.0})
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(DataError, match=r"empty\.json: no rows; mvbench has video, question, candidates"):
        prepare("mvbench", [tmp_path / "empty.json"], clips)


def test_a_letter_out_of_range_a_short_line_and_a_second_id_are_refused(
    written: Written, clips: Path, tmp_path: Path
) -> None:
    path = written("nextqa")
    text = path.read_text()
    lines = text.splitlines()
    path.write_text("\n".join([lines[0], lines[1].rsplit(",", 1)[0]]))
    with pytest.raises(DataError, match=r"mc\.csv:2: not as many cells as the first line has names"):
        prepare("nextqa", [path], clips)
    path.write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(DataError, match=r"mc\.csv:8: a second item 'toy0/0'; each needs its own id"):
        prepare("nextqa", [path], clips)
    columns = lines[0].split(",")
    cells = lines[1].split(",")
    cells[columns.index("answer")] = "5"
    path.write_text("\n".join([lines[0], ",".join(cells)]))
    with pytest.raises(DataError, match=r"mc\.csv:2: 'answer' is '5'; expected A to E, or 0 to 4"):
        prepare("nextqa", [path], clips)


def test_missing_videos_are_named_and_left_out_only_on_demand(
    written: Written, toys: list[Toy], clips: Path, tmp_path: Path
) -> None:
    path = written("videomme")
    some = tmp_path / "some"
    some.mkdir()
    (some / "toy1.mp4").symlink_to(clips / "toy1.mp4")
    with pytest.raises(DataError, match=r"2 of 3 videos are missing \(toy0, toy2\); add them, or leave"):
        prepare("videomme", [path], some)
    work = prepare("videomme", [path], some, skip_missing=True)
    assert {item.video for item in work.items} == {"toy1"}
    assert (work.missing, work.left_out) == (("toy0", "toy2"), 4)
    assert work.manifest["missing videos"] == ["toy0", "toy2"]
    with pytest.raises(DataError, match="none of the 3 videos is there; name their folder with --videos"):
        prepare("videomme", [path], tmp_path, skip_missing=True)


def test_unknown_names_are_refused_with_the_known_ones(written: Written, clips: Path) -> None:
    files = [written("videomme")]
    with pytest.raises(ConfigError, match="unknown benchmark 'mmvideo'; known: videomme, mvbench"):
        prepare("mmvideo", files, clips)
    with pytest.raises(
        ConfigError, match="videomme has no protocol 'mine'; its protocols: videomme-paper, lmms"
    ):
        prepare("videomme", files, clips, protocol="mine")
    with pytest.raises(ConfigError, match="unknown parser 'mine'; known: first-letter, ranked-letter"):
        prepare("videomme", files, clips, parser="mine")
    with pytest.raises(ConfigError, match="marked by a judge; the parser 'first-letter' would be ignored"):
        prepare("tgifqa", [written("tgifqa")], clips, parser="first-letter")
    with pytest.raises(ConfigError, match="nextqa with protocol letter has no subtitles"):
        prepare("nextqa", [written("nextqa")], clips, subtitles=clips)


def test_the_manifest_tells_protocols_samplers_and_files_apart(written: Written, clips: Path) -> None:
    path = written("videomme")
    work = prepare("videomme", [path], clips)
    others = [
        prepare("videomme", [path], clips, protocol="lmms-eval"),
        prepare("videomme", [path], clips, parser="ranked-letter"),
        prepare("videomme", [path], clips, subtitles=clips),
        prepare("videomme", [path], clips, sampling=Sampling(frames=4)),
        prepare("videomme", [path], clips, limit=5),
        replace(work, protocol=replace(work.protocol, max_new_tokens=17)),
    ]
    told = [json.dumps(one.manifest) for one in (work, *others)]
    assert len(set(told)) == len(told)
    assert work.manifest == prepare("videomme", [path], clips).manifest
