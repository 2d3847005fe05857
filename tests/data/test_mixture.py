"""Mixtures take what they say, and the same again for the same seed."""

import json
from collections import Counter
from pathlib import Path

import pytest

from llava_next_video.data.mixture import gather, read_mixture, read_take
from llava_next_video.data.record import Record
from llava_next_video.errors import ConfigError


def test_the_takes_of_the_original_are_read() -> None:
    assert read_take("all").indices(3, seed=0) == [0, 1, 2]
    assert read_take("first:2").indices(3, seed=0) == [0, 1]
    assert read_take("first:9").indices(3, seed=0) == [0, 1, 2]
    assert read_take("end:50%").indices(4, seed=0) == [2, 3]
    taken = read_take("random:10%").indices(50, seed=1)
    assert len(set(taken)) == 5
    assert taken == sorted(taken) == read_take("random:10%").indices(50, seed=1)
    assert taken != read_take("random:10%").indices(50, seed=2)


@pytest.mark.parametrize("text", ["some", "first", "first:-1", "random:101%", "end:1.5", "first:1:2"])
def test_an_unknown_take_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected all, first:N"):
        read_take(text)


def rows(path: Path, count: int) -> None:
    path.write_text(
        json.dumps(
            [{"id": f"{path.stem}{number}", "caption": "A", "video": "a.mp4"} for number in range(count)]
        )
    )


def test_weights_repeat_whole_samples_and_thin_out_by_chance(tmp_path: Path) -> None:
    rows(tmp_path / "a.json", 4)
    rows(tmp_path / "b.json", 4)
    (tmp_path / "mix.toml").write_text(
        '[[sources]]\npath = "a.json"\nweight = 2.5\n[[sources]]\npath = "b.json"\ntake = "first:1"\n'
    )
    sources = read_mixture(tmp_path / "mix.toml")
    seen = Counter(sample.id for sample in gather(sources, seed=3))
    assert sum(count for name, count in seen.items() if name.startswith("a")) == 10
    assert set(seen.values()) <= {1, 2, 3}
    assert seen["b0"] == 1
    assert [sample.id for sample in gather(sources, seed=3)] == [
        sample.id for sample in gather(sources, seed=3)
    ]


def test_the_originals_yaml_list_is_read(tmp_path: Path) -> None:
    rows(tmp_path / "a.json", 3)
    rows(tmp_path / "b.json", 3)
    (tmp_path / "exp.yaml").write_text(
        'datasets:\n  - json_path: "{a,b}.json"\n    sampling_strategy: "first:2"\n'
    )
    assert [sample.id for sample in gather(read_mixture(tmp_path / "exp.yaml"), seed=0)] == [
        "a0",
        "a1",
        "b0",
        "b1",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[sources]]\npath = "a"\nwight = 2\n', "unknown 'wight'"),
        ('[[sources]]\npath = "a"\nweight = 0\n', "expected a number above 0"),
        ("[[sources]]\nroot = 'a'\n", "no 'path'"),
        ("sources = 1\n", "no list of files"),
        ("[[", "not TOML"),
    ],
)
def test_a_bad_mixture_is_refused_in_one_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "mix.toml").write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_mixture(tmp_path / "mix.toml")


def test_questions_can_be_set_apart_behind_the_same_clip(tmp_path: Path) -> None:
    said = [("human", "<video>\nWhat?"), ("gpt", "A."), ("human", "Where?"), ("gpt", "There.")]
    row = {"id": "r", "video": "a.mp4", "conversations": [{"from": who, "value": what} for who, what in said]}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    (tmp_path / "mix.toml").write_text('[[sources]]\npath = "a.json"\napart = true\n')
    first, second = gather(read_mixture(tmp_path / "mix.toml"), seed=0)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.media == second.media
    assert [[turn.text for turn in sample.turns] for sample in (first, second)] == [
        ["What?", "A."],
        ["Where?", "There."],
    ]
    assert (first.id, second.id) == ("r.0", "r.1")
