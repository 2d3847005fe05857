"""Rows as parquet: the door to pyarrow."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava_next_video.caption.row import NAMES, Row
from llava_next_video.errors import DataError, MissingExtraError

NUMBERS = frozenset({"duration_s", "read_ms", "wait_ms", "generate_ms"})
COUNTS = frozenset({"prompt_tokens", "visual_tokens", "cached_tokens", "completion_tokens", "attempts"})


def arrow(module: str = "pyarrow") -> Any:
    """pyarrow, or a module of it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            "captions are parquet, and pyarrow is not installed; pip install 'llava-next-video[caption]'"
        ) from error


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a part of one row or more.

    By way of JSON: for lists of Python's values pyarrow loads pandas, if that is installed, to see whether
    they are one of its series, and that takes as long as hundreds of captions.
    """
    lines = "".join(f"{row.as_json()}\n" for row in rows).encode()
    json = arrow("pyarrow.json")
    table = json.read_json(
        arrow().BufferReader(lines),
        read_options=json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        parse_options=json.ParseOptions(explicit_schema=_schema(), unexpected_field_behavior="error"),
    )
    write_table(path, table)


def write_table(path: Path, table: Any) -> None:
    """Write rows that were read from a part."""
    arrow("pyarrow.parquet").write_table(table, path, compression="zstd")


def read_ids(path: Path) -> list[str] | None:
    """The ids of a part; None if there is none."""
    return read_table(path, ["id"])["id"].to_pylist() if path.exists() else None


def read_rows(path: Path) -> list[Row]:
    """The rows of a part."""
    return as_rows(read_table(path))


def as_rows(table: Any) -> list[Row]:
    """The rows of a table."""
    return [Row.from_values(values) for values in table.to_pylist()]


def without_errors(table: Any) -> Any:
    """The rows that have a caption."""
    return table.filter(arrow("pyarrow.compute").not_equal(table["finish_reason"], "error"))


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """The table of a part.

    Raises:
        DataError: The part is missing or damaged.
    """
    pyarrow = arrow()
    try:
        with arrow("pyarrow.parquet").ParquetFile(path) as file:
            return file.read(columns=columns)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the part is gone; was a new run started meanwhile?") from error
    except (pyarrow.ArrowInvalid, KeyError) as error:
        raise DataError(f"{path}: a damaged part ({error}); move it away and run again") from error


def _schema() -> Any:
    pyarrow = arrow()
    kinds = {
        **dict.fromkeys(NAMES, pyarrow.string()),
        **dict.fromkeys(NUMBERS, pyarrow.float64()),
        **dict.fromkeys(COUNTS, pyarrow.int32()),
        "frame_times_s": pyarrow.list_(pyarrow.float64()),
        "flags": pyarrow.list_(pyarrow.string()),
    }
    return pyarrow.schema([(name, kinds[name]) for name in NAMES])
