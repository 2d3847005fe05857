"""The precision that `auto` takes, by what the processor can do."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llava_next_video.engine import cpu
from llava_next_video.engine.linear import chosen_dtype

WITH = (
    "processor\t: 0\nmodel name\t: Some\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"
)
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"
WITHOUT = "processor\t: 0\nflags\t\t: fpu avx2 avx512f\n"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the system says of the processor, under `text`."""
    said: dict[str, str] = {}

    def read(path: Path, *args: object, **kwargs: object) -> str:
        if "text" not in said:
            raise FileNotFoundError(path)
        return said["text"]

    cpu.cpu_flags.cache_clear()
    monkeypatch.setattr(Path, "read_text", read)
    yield said
    cpu.cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"), [(WITH, torch.bfloat16), (ARM, torch.bfloat16), (WITHOUT, torch.float32)]
)
def test_auto_goes_by_the_instructions(listed: dict[str, str], text: str, expected: torch.dtype) -> None:
    listed["text"] = text
    assert chosen_dtype("auto", torch.device("cpu"), "none") is expected


def test_where_the_system_has_no_such_list_it_is_float32(listed: dict[str, str]) -> None:
    assert not listed
    assert chosen_dtype("auto", torch.device("cpu"), "none") is torch.float32


def test_no_clock_has_a_part_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> float:
        raise AssertionError("a busy machine must not choose otherwise than an idle one")

    for clock in ("perf_counter", "monotonic", "process_time", "time"):
        monkeypatch.setattr(time, clock, refuse)
    assert chosen_dtype("auto", torch.device("cpu"), "none") in (torch.float32, torch.bfloat16)
