"""A clip of the toy world with its questions, and a judge on a real port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.judging.judge_server import JudgeServer

from llava_next_video.assistant import VideoAssistant
from llava_next_video.world import write_world


@pytest.fixture(scope="session")
def assistant() -> VideoAssistant:
    """The checkpoint of the package."""
    return VideoAssistant.load()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films with one question each, in world.json."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, clips=2, images=0, seed=11, turns=1, things=1)
    return root / "world.json"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """A judge that answers 4 to everything, until it is told otherwise."""
    running = JudgeServer()
    yield running
    running.close()
