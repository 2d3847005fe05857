"""JSON files that people can read, and that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path


def write_whole(path: Path, value: object) -> None:
    """A JSON file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(spelled(value) + "\n", encoding="utf-8")
    part.replace(path)


def spelled(value: object, indent: str = "") -> str:
    """JSON in which every innermost record is one line.

    >>> print(spelled({"a": {"mean": 1.5, "seeds": [1, 2]}}))
    {
     "a": {"mean": 1.5, "seeds": [1, 2]}
    }
    """
    inner = indent + " "
    if isinstance(value, dict) and any(_holds_records(one) for one in value.values()):
        lines = [f"{inner}{json.dumps(key)}: {spelled(one, inner)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return "[\n" + ",\n".join(inner + spelled(one, inner) for one in value) + f"\n{indent}]"
    return json.dumps(value)


def _holds_records(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
