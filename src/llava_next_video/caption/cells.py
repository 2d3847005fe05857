"""Videos inside a parquet file, read when needed; and those that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llava_next_video.caption.table import arrow
from llava_next_video.data.record import Place
from llava_next_video.data.rows import Row
from llava_next_video.errors import DataError, MediaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The bytes in one cell of a parquet file."""

    file: str
    group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        """What a report calls it."""
        return f"row {self.row} of group {self.group}, {self.column}, in {self.file}"

    def read(self) -> bytes:
        """The bytes; neighbours come from the row group that was read last.

        Raises:
            MediaError: The file is gone or has changed.
        """
        try:
            value = _group(self.file, self.group, self.column)[self.row].as_py()
        except (OSError, IndexError, KeyError, arrow().ArrowInvalid) as error:
            raise MediaError(f"{self.name}: {error}") from error
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise MediaError(f"{self.name}: holds {type(content).__name__}; expected bytes")
        return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A video that its row cannot have captioned; `told` says why."""

    name: str
    told: str

    def read(self) -> bytes:
        """Never.

        Raises:
            MediaError: Always; it becomes the video's row.
        """
        raise MediaError(self.told)


def table_rows(path: Path) -> Iterator[Row]:
    """The rows of a parquet file, with a `Cell` in place of bytes.

    Raises:
        DataError: The file is damaged.
    """
    number = 0
    try:
        with arrow("pyarrow.parquet").ParquetFile(path) as table:
            binary = [field.name for field in table.schema_arrow if _holds_bytes(field.type)]
            plain = [name for name in table.schema_arrow.names if name not in binary]
            for group in range(table.num_row_groups):
                rows = table.read_row_group(group, columns=plain).to_pylist()
                for row in range(table.metadata.row_group(group).num_rows):
                    number += 1
                    cells = {
                        name: Cell(file=str(path.absolute()), group=group, row=row, column=name)
                        for name in binary
                    }
                    values = rows[row] if plain else {}
                    yield Row(values=values | cells, place=Place(file=str(path), line=number))
    except (OSError, arrow().ArrowInvalid) as error:
        raise DataError(f"{path}: a damaged parquet file ({error})") from error


@lru_cache(maxsize=2)
def _group(file: str, group: int, column: str) -> Any:
    with arrow("pyarrow.parquet").ParquetFile(file) as table:
        return table.read_row_group(group, columns=[column])[column]


def _holds_bytes(kind: Any) -> bool:
    """Whether a column has binary values, or the structs with `bytes` that `datasets` writes."""
    types = arrow("pyarrow.types")
    if types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))
