"""Toy clips to be asked about, the shipped checkpoint, and a judge on a real port."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.evaluate.toy_sets import Toy, film_toys, write_set
from tests.judging.judge_server import JudgeServer

from llava_next_video.assistant import VideoAssistant
from llava_next_video.checkpoint_name import default_checkpoint
from llava_next_video.evaluate.manifest import Manifest, of_model


@pytest.fixture(scope="session")
def assistant() -> VideoAssistant:
    """The checkpoint of the package."""
    return VideoAssistant.load()


@pytest.fixture(scope="session")
def model(assistant: VideoAssistant) -> Manifest:
    """What stands in manifests about it."""
    return of_model(assistant, "tiny", default_checkpoint())


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips under the names that the formats give them."""
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="session")
def toys(clips: Path) -> list[Toy]:
    """Two questions about each clip."""
    toys = film_toys(clips)
    for number in range(3):
        (clips / f"v_toy{number}.mp4").symlink_to(clips / f"toy{number}.mp4")
        (clips / f"video{number}.mp4").symlink_to(clips / f"toy{number}.mp4")
    return toys


@pytest.fixture
def written(toys: list[Toy], tmp_path: Path) -> Callable[[str], Path]:
    """Writes the table of a benchmark about the toys."""
    return lambda name: write_set(name, toys, tmp_path / name)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """A judge that speaks the chat API."""
    running = JudgeServer()
    yield running
    running.close()
