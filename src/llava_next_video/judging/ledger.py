"""Lines that survive a crash: what was said and judged so far."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """A file of JSON lines that is only added to; every line is on the disk before `add` returns.

    A last line that was cut short is forgotten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.rows: list[dict[str, Any]] = []
        if not path.exists():
            return
        whole = _whole(path)
        self.rows = [json.loads(line) for line in whole.splitlines()]
        if len(whole) < path.stat().st_size:
            os.truncate(path, len(whole))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a line."""
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self.rows.append(dict(row))


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that somebody may be adding to; a last one that is cut short is left out."""
    return [json.loads(line) for line in _whole(path).splitlines()]


def _whole(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]
