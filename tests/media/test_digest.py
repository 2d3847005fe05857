"""The hash is of all bytes, whoever reads the file meanwhile."""

import hashlib
import io
from pathlib import Path

import pytest

from llava_next_video.media.digest import digest_of

LARGE = bytes(range(256)) * 40_000  # 10 MB: hashed by a second thread


def test_a_large_file_is_hashed_whole_while_another_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    with path.open("rb") as file, digest_of(file, len(LARGE)) as digest:
        assert file.tell() == 0
        assert file.read(100) == LARGE[:100]
        file.seek(5_000_000)
        assert digest() == digest() == hashlib.sha256(LARGE).digest()
        assert file.tell() == 5_000_000


def test_small_files_and_memory_are_hashed_at_once(tmp_path: Path) -> None:
    for data in (b"small", LARGE):
        file = io.BytesIO(data)
        file.seek(3)
        with digest_of(file, len(data)) as digest:
            assert file.tell() == 0
        assert digest() == hashlib.sha256(data).digest()


def test_an_error_ends_the_hashing(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    with path.open("rb") as file, pytest.raises(KeyError), digest_of(file, len(LARGE)):
        raise KeyError
