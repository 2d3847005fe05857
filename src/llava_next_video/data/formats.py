"""What the keys of a row mean, in every spelling people use.

A row is told apart by its keys: `conversations` (LLaVA, LLaMA-Factory), `messages` (OpenAI, TRL, ms-swift),
`prompt` with `completion` or with `chosen` and `rejected` (TRL, LLaVA-Hound), `instruction` (Alpaca), or a
bare `caption`. The readers open no medium.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from llava_next_video.data.record import Preference, Record, Sample, Slice
from llava_next_video.data.rows import Row
from llava_next_video.errors import DataError, PromptError
from llava_next_video.messages import Image, Part, Text, Turn, Video, read_messages

Format = Literal["llava", "ranking", "messages", "swift", "completion", "preference", "alpaca", "caption"]

# The keys that tell a format apart, in the order they are tried; all of a row's must be there.
SIGNATURES: tuple[tuple[Format, tuple[str, ...]], ...] = (
    ("ranking", ("conversations", "chosen", "rejected")),
    ("ranking", ("messages", "chosen", "rejected")),
    ("swift", ("messages", "rejected_response")),
    ("swift", ("messages", "rejected_messages")),
    ("llava", ("conversations",)),
    ("messages", ("messages",)),
    ("preference", ("chosen", "rejected")),
    ("completion", ("prompt", "completion")),
    ("alpaca", ("instruction", "output")),
    ("caption", ("caption",)),
)

LLAVA_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def row_format(values: Mapping[str, object]) -> Format | None:
    """The format of a row by its keys; None where no format has them.

    >>> row_format({"id": 1, "video": "a.mp4", "conversations": []})
    'llava'
    >>> row_format({"prompt": "Why?", "answer": "x", "chosen": "a", "rejected": "b", "video": "a.mp4"})
    'preference'
    """
    for name, keys in SIGNATURES:
        if all(key in values for key in keys):
            return name
    return None


def read_row(row: Row, root: Path) -> Sample:
    """The sample that a row spells; its relative media paths are joined to `root`.

    Raises:
        DataError: What is wrong with the row, after its file and line.
    """
    name = row_format(row.values)
    try:
        match name:
            case "llava":
                return _conversation(row, root, _spoken(row.values["conversations"]))
            case "messages":
                return _conversation(row, root, _spoken(row.values["messages"]))
            case "completion":
                turns = _spoken(row.values["prompt"]) + _spoken(row.values["completion"], "assistant")
                return _conversation(row, root, turns)
            case "alpaca":
                return _conversation(row, root, _alpaca_turns(row.values))
            case "caption":
                answer = Turn(role="assistant", parts=(Text(text=_string(row.values, "caption")),))
                return _conversation(row, root, (Turn(role="user", parts=()), answer))
            case "ranking":
                spoken = _spoken(row.values.get("conversations", row.values.get("messages")))
                return _preference(row, root, spoken, row.values["chosen"], row.values["rejected"])
            case "swift":
                return _swift(row, root)
            case "preference":
                return _two_answers(row, root)
    except PromptError as error:
        raise DataError(f"{row.place}: {error}") from error
    known = "; ".join(sorted({" + ".join(keys) for _, keys in SIGNATURES}))
    raise DataError(
        f"{row.place}: no format has only the keys {sorted(row.values)}; expected one of: {known}"
    )


def _conversation(row: Row, root: Path, turns: tuple[Turn, ...]) -> Record:
    filled = _with_media(turns, row, root)
    _check_order(filled, ends_with="assistant")
    return Record(id=_id(row), turns=filled, place=row.place)


def _preference(
    row: Row, root: Path, turns: tuple[Turn, ...], chosen: object, rejected: object
) -> Preference:
    filled = _with_media(turns, row, root)
    _check_order(filled, ends_with="user")
    answers = [_answer(value, name) for name, value in (("chosen", chosen), ("rejected", rejected))]
    return Preference(id=_id(row), turns=filled, chosen=answers[0], rejected=answers[1], place=row.place)


def _swift(row: Row, root: Path) -> Preference:
    turns = _spoken(row.values["messages"])
    if turns[-1].role != "assistant":
        raise PromptError("'messages' must end with the chosen answer; its last turn is the user's")
    rejected = row.values.get("rejected_response", row.values.get("rejected_messages"))
    return _preference(row, root, turns[:-1], turns[-1], rejected)


def _two_answers(row: Row, root: Path) -> Preference:
    """LLaVA-Hound's and TRL's pairs; without a prompt, it is what both conversations begin with."""
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    if "prompt" in row.values:
        return _preference(row, root, _spoken(row.values["prompt"]), chosen, rejected)
    turns, others = _spoken(chosen), _spoken(rejected)
    if isinstance(chosen, str) or turns[:-1] != others[:-1] or len(turns) < 2:
        raise PromptError("'chosen' and 'rejected' share no prompt; add 'prompt'")
    return _preference(row, root, turns[:-1], turns[-1], others[-1])


def _alpaca_turns(values: Mapping[str, object]) -> tuple[Turn, ...]:
    question = _string(values, "instruction")
    if values.get("input"):
        question = f"{question}\n{_string(values, 'input')}"
    turns: list[Turn] = []
    if values.get("system"):
        turns.append(Turn(role="system", parts=(Text(text=_string(values, "system")),)))
    for pair in cast(Sequence[Sequence[str]], values.get("history") or ()):
        turns += [*_spoken(pair[0]), *_spoken(pair[1], "assistant")]
    return (*turns, *_spoken(question), *_spoken(_string(values, "output"), "assistant"))


def _string(values: Mapping[str, object], key: str) -> str:
    value = values[key]
    if not isinstance(value, str):
        raise PromptError(f"{key!r} is {type(value).__name__}; expected text")
    return value


def _id(row: Row) -> str:
    given = row.values.get("id", row.values.get("question_id"))
    return str(given) if given is not None else str(row.place.line)


def _spoken(value: object, role: Literal["user", "assistant"] = "user") -> tuple[Turn, ...]:
    """The turns of a message list, or a bare text said by `role`; `<image>` and `<video>` become media."""
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        raise PromptError(f"expected text or a list of messages, got {type(value).__name__}")
    return read_messages([_with_tags(message) for message in value])


def _with_tags(message: object) -> object:
    """A message whose text may hold `<video>`: spelled LLaVA's way, whose reader splits it."""
    if isinstance(message, Mapping) and isinstance(message.get("content"), str):
        name = LLAVA_NAMES.get(str(message.get("role")))
        if name is not None:
            return {"from": name, "value": message["content"]}
    return message


def _answer(value: object, name: str) -> Turn:
    if isinstance(value, Turn):
        return value
    turns = _spoken(value, "assistant")
    if turns[-1].role != "assistant" or any(turn.role == "assistant" for turn in turns[:-1]):
        raise PromptError(f"{name!r} must be one answer of the assistant")
    return turns[-1]


def _check_order(turns: Sequence[Turn], ends_with: Literal["user", "assistant"]) -> None:
    spoken = [turn.role for turn in turns if turn.role != "system"]
    wanted = ["assistant" if number % 2 else "user" for number in range(len(spoken))]
    if spoken != wanted or any(turn.role == "system" for turn in turns[1:]):
        order = ", ".join(turn.role for turn in turns)
        raise PromptError(
            f"the turns are {order}; expected user and assistant in turn, after one system turn"
        )
    if not spoken or spoken[-1] != ends_with:
        raise PromptError(f"the last turn must be the {ends_with}'s; the turns are {', '.join(spoken)}")
    for number, turn in enumerate(turns):
        if turn.role == "assistant" and not turn.text.strip():
            raise PromptError(f"turn {number + 1}, the assistant's, has no words")


def _with_media(turns: tuple[Turn, ...], row: Row, root: Path) -> tuple[Turn, ...]:
    """The turns with a source in each medium.

    `<image>` may stand for a clip where a row has clips and no pictures (LLaVA writes it so); without any
    placeholder the media come first, as the checkpoints were trained.
    """
    pictures, clips = _given(row.values, "image"), _given(row.values, "video")
    given = len(pictures) + len(clips)
    open_tags = sum(medium.source is None for turn in turns for medium in turn.media)
    if open_tags == 0 and given:
        first = next(number for number, turn in enumerate(turns) if turn.role == "user")
        media: list[Part] = [*[Image()] * len(pictures), *[Video()] * len(clips)]
        moved = Turn(role="user", parts=(*media, *turns[first].parts))
        turns, open_tags = (*turns[:first], moved, *turns[first + 1 :]), given
    tags = {"image": 0, "video": 0}
    for turn in turns:
        for medium in turn.media:
            if medium.source is None:
                tags["image" if isinstance(medium, Image) and (pictures or not clips) else "video"] += 1
    if tags != {"image": len(pictures), "video": len(clips)}:
        raise PromptError(
            f"{open_tags} <image> or <video> tags, but {len(pictures)} pictures and {len(clips)} clips; "
            "give one medium of its kind for each tag"
        )
    queues = {"image": iter(pictures), "video": iter(clips)}

    def sourced(part: Part) -> Part:
        if isinstance(part, Text):
            return part
        if part.source is not None:
            located = _located(part.source, root)
            return Image(source=located) if isinstance(part, Image) else Video(source=located)
        if isinstance(part, Image) and (pictures or not clips):
            return Image(source=_located(next(queues["image"]), root))
        return Video(source=_located(next(queues["video"]), root))

    return tuple(Turn(role=turn.role, parts=tuple(sourced(part) for part in turn.parts)) for turn in turns)


def _given(values: Mapping[str, object], kind: Literal["image", "video"]) -> list[object]:
    """The media of a row under `image`, `images`, `video` or `videos`."""
    found: list[object] = []
    for key in (kind, f"{kind}s"):
        value = values.get(key)
        if value is None or value == "" or value == []:
            continue
        found += value if isinstance(value, list) else [value]
    return found


def _located(source: object, root: Path) -> object:
    """A source with its path joined to the root; URLs, bytes and slices stay."""
    match source:
        case str():
            return source if "://" in source or source.startswith("data:") else str(root / source)
        case list() | tuple():
            return [_located(frame, root) for frame in source]
        case {"bytes": bytes(content)}:
            return content
        case {"path": str(path)} | {"url": str(path)} | {"file_name": str(path)}:
            return _located(path, root)
        case Path() | bytes() | Slice():
            return root / source if isinstance(source, Path) else source
    raise PromptError(
        f"a medium is {type(source).__name__}; expected a path, a URL, bytes or a list of frames"
    )
