"""What a checkpoint's name can mean."""

from pathlib import Path

import pytest

from llava_next_video.checkpoint_name import default_checkpoint, folder_named
from llava_next_video.errors import CheckpointError


def test_a_folder_comes_before_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_named("owner/name") is None
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert folder_named("owner/name") == Path("owner/name")
    assert folder_named(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "name", ["tinny", "./tiny", "~/tiny", "/nowhere/tiny", "runs/tiny/last", "owner/", ""]
)
def test_what_is_no_folder_and_no_name_is_refused_before_the_hub_is_asked(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"is no folder here; .* owner/name"):
        folder_named(name)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file; give the folder"):
        folder_named(tmp_path / "model.safetensors")


def test_default_is_the_packages_own_unless_a_folder_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_named("default") == default_checkpoint()
    (tmp_path / "default").mkdir()
    assert folder_named("default") == Path("default")
