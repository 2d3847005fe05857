"""All samples of a file or a folder of data sets, and back to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from llava_next_video.data import factory
from llava_next_video.data.formats import read_row
from llava_next_video.data.record import Preference, Record, Sample
from llava_next_video.data.rows import Row, container, read_rows
from llava_next_video.errors import ConfigError, DataError
from llava_next_video.messages import Image, Part, Text, Turn, Video

Spelling = Literal["llava", "messages", "hound"]


def read_samples(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> Iterator[Sample]:
    """The samples of a file, in order; its format is found by content.

    `path` is a JSON list, JSON lines, parquet, a WebDataset tar, or LLaMA-Factory's `dataset_info.json` (with
    `#name` to take one of its data sets). Media paths are relative to `root`, by default the file's folder.

    Raises:
        DataError: A row that cannot be used, with its file and line.
        MissingExtraError: A parquet file without pyarrow.
    """
    for sample in read_each(path, root):
        if isinstance(sample, DataError):
            raise sample
        yield sample


def read_each(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None
) -> Iterator[Sample | DataError]:
    """As `read_samples`, but a row that cannot be used comes as its error, and the next one follows.

    A line that is no JSON ends its file, whose other rows cannot be trusted.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    file, _, name = str(path).partition("#")
    for folder, rows in _row_sets(Path(file), name or None):
        while True:
            try:
                yield read_row(next(rows), Path(root) if root is not None else folder)
            except DataError as error:
                yield error
            except StopIteration:
                break


def _row_sets(path: Path, name: str | None) -> Iterator[tuple[Path, Iterator[Row]]]:
    if path.is_dir():
        if not (path / factory.FILE_NAME).exists():
            raise DataError(f"{path} is a folder without {factory.FILE_NAME}; name the file of samples")
        path = path / factory.FILE_NAME
    if path.name == factory.FILE_NAME and container(path) == "jsonl":
        for source in factory.read_sources(path, name):
            yield path.parent, factory.rename(read_rows(source.path), source)
        return
    if name is not None:
        raise DataError(
            f"{path}#{name}: only {factory.FILE_NAME} holds several data sets; leave #{name} away"
        )
    yield path.parent, read_rows(path)


def write_samples(
    path: str | os.PathLike[str],
    samples: Sequence[Sample],
    *,
    spelling: Spelling,
    root: str | os.PathLike[str] | None = None,
    notes: Sequence[Mapping[str, object]] | None = None,
) -> None:
    """Write samples as JSON lines (LLaVA: a JSON list), with media paths relative to `root`.

    `llava` is LLaVA's `conversations`; `messages` is what LLaMA-Factory, ms-swift and TRL read; `hound` is
    LLaVA-Hound's preference pairs. `notes` has further keys for each sample, which readers pass over.

    Raises:
        ConfigError: A sample that the spelling has no words for.
    """
    target = Path(path)
    base = Path(root) if root is not None else target.parent
    rows = [
        {**_spelled(sample, spelling, base), **note}
        for sample, note in zip(samples, notes or [{}] * len(samples), strict=True)
    ]
    with target.open("w", encoding="utf-8") as file:
        if spelling == "llava":
            file.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _spelled(sample: Sample, spelling: Spelling, root: Path) -> Mapping[str, object]:
    media = _media_columns(sample, root)
    match spelling, sample:
        case "llava", Record():
            if len(sample.media) > 1:
                raise ConfigError(f"{sample.id}: LLaVA's format has one medium a sample; write 'messages'")
            turns: object = [
                {
                    "from": {"user": "human", "assistant": "gpt"}.get(turn.role, "system"),
                    "value": _tagged(turn),
                }
                for turn in sample.turns
            ]
            singular = {key.removesuffix("s"): value[0] for key, value in media.items()}
            return {"id": sample.id, **singular, "conversations": turns}
        case "messages", _:
            messages = [{"role": turn.role, "content": _tagged(turn, line="")} for turn in sample.turns]
            if isinstance(sample, Preference):
                messages.append({"role": "assistant", "content": sample.chosen.text})
                return {
                    "id": sample.id,
                    "messages": messages,
                    "rejected_response": sample.rejected.text,
                    **media,
                }
            return {"id": sample.id, "messages": messages, **media}
        case "hound", Preference() if len(sample.turns) == 1 and len(sample.media) == 1:
            singular = {key.removesuffix("s"): value[0] for key, value in media.items()}
            chosen, rejected = sample.chosen.text, sample.rejected.text
            pair = {"answer": chosen, "chosen": chosen, "rejected": rejected}
            return {"id": sample.id, "prompt": _tagged(sample.turns[0]), **pair, **singular}
    kind = "a preference" if isinstance(sample, Preference) else "a conversation"
    raise ConfigError(f"{sample.id}: {kind} of this shape has no spelling as {spelling!r}; write 'messages'")


def _tagged(turn: Turn, line: str = "\n") -> str:
    """The turn as text; LLaVA sets each tag on a line of its own."""

    def tagged(part: Part) -> str:
        match part:
            case Text(text=text):
                return text
            case Image():
                return f"<image>{line}"
            case Video():
                return f"<video>{line}"

    return "".join(tagged(part) for part in turn.parts)


def _media_columns(sample: Sample, root: Path) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {}
    for medium in sample.media:
        key = "images" if isinstance(medium, Image) else "videos"
        columns.setdefault(key, []).append(_relative(medium.source, root, sample.id))
    return columns


def _relative(source: object, root: Path, name: str) -> object:
    if isinstance(source, str):
        if "://" in source or source.startswith("data:"):
            return source
        try:
            return str(Path(source).relative_to(root))
        except ValueError:
            return str(Path(source).resolve())
    if isinstance(source, list | tuple):
        return [_relative(frame, root, name) for frame in cast(Sequence[object], source)]
    raise ConfigError(
        f"{name}: its medium has no path, only {type(source).__name__}; write it to a file first"
    )
