"""Uploads, to a hub on this machine that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.convert.hub import Hub, open_hub

from llava_next_video.convert.push import push
from llava_next_video.errors import CheckpointError


@pytest.fixture
def hub() -> Iterator[Hub]:
    with open_hub() as server:
        yield server


def test_every_file_arrives_as_it_is(hub: Hub, tiny_checkpoint: Path) -> None:
    page = push(tiny_checkpoint, "me/tiny", private=True, endpoint=hub.url, token="hf_test")
    assert page == f"{hub.url}/me/tiny"
    assert hub.created[0]["visibility"] == "private"
    sent = {
        str(path.relative_to(tiny_checkpoint)): path for path in tiny_checkpoint.rglob("*") if path.is_file()
    }
    assert hub.files.keys() - {".gitattributes"} == sent.keys()
    for name, path in sent.items():
        assert hub.files[name] == path.read_bytes(), name


@pytest.mark.parametrize(
    ("code", "message"), [(401, "wants a token that may write me/tiny"), (403, "the hub refuses me/tiny: ")]
)
def test_what_the_hub_objects_to_is_one_sentence(
    hub: Hub, tiny_checkpoint: Path, code: int, message: str
) -> None:
    hub.refuses = code
    with pytest.raises(CheckpointError, match=message):
        push(tiny_checkpoint, "me/tiny", endpoint=hub.url, token="hf_test")
    assert not hub.files


def test_a_hub_out_of_reach_is_named(hub: Hub, tiny_checkpoint: Path) -> None:
    hub.server_close()
    with pytest.raises(CheckpointError, match="the hub cannot be reached for me/tiny"):
        push(tiny_checkpoint, "me/tiny", endpoint=hub.url, token="hf_test")


def test_what_is_no_checkpoint_or_name_never_leaves_the_machine(
    hub: Hub, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        push(tmp_path, "me/tiny", endpoint=hub.url, token="hf_test")
    with pytest.raises(CheckpointError, match="'tiny' is no name on the hub; expected owner/name"):
        push(tiny_checkpoint, "tiny", endpoint=hub.url, token="hf_test")
    assert not hub.created
