"""The model uses the cores that decoders leave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from llava_next_video.caption.cores import Cores


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_each_decoder_takes_one_core_and_the_last_core_is_the_models() -> None:
    torch.set_num_threads(3)
    cores, used = Cores(), []
    with cores.one_taken(), cores.one_taken():
        for _ in range(2):
            cores.share()
            used.append(torch.get_num_threads())
        with cores.one_taken():
            cores.share()
            used.append(torch.get_num_threads())
    cores.share()
    assert [*used, torch.get_num_threads()] == [1, 1, 1, 3]


def test_a_decoder_that_failed_gives_its_core_back() -> None:
    torch.set_num_threads(2)
    cores = Cores()
    with pytest.raises(OSError, match="gone"), cores.one_taken():
        raise OSError("gone")
    cores.share()
    assert torch.get_num_threads() == 2
