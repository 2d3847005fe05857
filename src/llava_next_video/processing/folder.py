"""What a checkpoint's files of any era say about processing.

The files, by age: `preprocessor_config.json` with a flat `processor_config.json` and `chat_template.json`
(2024); besides, `video_preprocessor_config.json` (2025); one nested `processor_config.json` with
`chat_template.jinja` (since 2026). Class names inside the files are not followed: they are what sends
transformers in circles (huggingface/transformers issue 42142).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers.utils.hub import cached_file

from llava_next_video.checkpoint_name import folder_named
from llava_next_video.errors import CheckpointError

Json = Mapping[str, object]

HUB_OPTIONS = frozenset(
    {
        "cache_dir",
        "force_download",
        "local_files_only",
        "token",
        "revision",
        "subfolder",
        "proxies",
        "trust_remote_code",
    }
)

ADDED = frozenset({"_from_auto", "_commit_hash", "code_revision"})
"""What transformers' Auto classes add to a call; it changes nothing in what is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorFiles:
    """The contents of a checkpoint's processor files; a missing file is empty.

    Attributes:
        processor: Settings of the processor itself, flat.
        image: Settings for pictures.
        video: Settings for clips.
        chat_template: One template, or several by name, or None.
        config: config.json, which fills in what the other files leave out.
    """

    processor: Json
    image: Json
    video: Json
    chat_template: str | dict[str, str] | None
    config: Json

    @staticmethod
    def split_hub_options(kwargs: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """The keywords that say where to load from, and the others without transformers' own marks."""
        hub = {name: value for name, value in kwargs.items() if name in HUB_OPTIONS}
        others = {name: value for name, value in kwargs.items() if name not in HUB_OPTIONS | ADDED}
        return hub, others


def read_processor_files(name: str | os.PathLike[str], **hub: object) -> ProcessorFiles:
    """The processor files of a folder, or of a checkpoint of the hub by its name.

    Raises:
        CheckpointError: The folder or name does not exist, or a file is no JSON.
    """
    source = _Source(name, hub)
    config = source.json("config.json")
    processor = source.json("processor_config.json")
    still = source.json("preprocessor_config.json")
    moving = source.json("video_preprocessor_config.json")
    nested_image, nested_video = processor.get("image_processor"), processor.get("video_processor")
    flat = {
        key: value for key, value in processor.items() if key not in ("image_processor", "video_processor")
    }
    silent = _from_tower(config)
    return ProcessorFiles(
        processor=flat,
        image=nested_image if isinstance(nested_image, Mapping) else still or silent,
        video=nested_video if isinstance(nested_video, Mapping) else moving or still or silent,
        chat_template=_chat_template(source, flat),
        config=config,
    )


def _from_tower(config: Json) -> Json:
    """Without any preprocessor file, pictures and frames have the size that the vision tower wants."""
    tower = config.get("vision_config")
    side = tower.get("image_size") if isinstance(tower, Mapping) else None
    if not isinstance(side, int):
        return {}
    sizes: dict[str, object] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    if "image_grid_pinpoints" in config:
        sizes["image_grid_pinpoints"] = config["image_grid_pinpoints"]
    return sizes


def _chat_template(source: _Source, processor: Json) -> str | dict[str, str] | None:
    templates = source.templates()
    default: object = source.text("chat_template.jinja")
    if default is None:
        default = source.json("chat_template.json").get("chat_template") or processor.get("chat_template")
    if isinstance(default, str):
        templates["default"] = default
    elif isinstance(default, Mapping):
        templates = {**default, **templates}
    if set(templates) == {"default"}:
        return templates["default"]
    return templates or None


class _Source:
    """Files of a folder or of the hub; what is not there reads as None."""

    def __init__(self, name: str | os.PathLike[str], hub: Mapping[str, object]) -> None:
        self.name = os.fspath(name)
        self.hub = dict(hub)
        self.folder = folder_named(name)

    def path(self, file: str) -> Path | None:
        subfolder = str(self.hub.get("subfolder") or "")
        if self.folder is not None:
            path = self.folder / subfolder / file
            return path if path.is_file() else None
        options = {key: value for key, value in self.hub.items() if key != "trust_remote_code"}
        # With this flag a hub out of reach is an error, and for config.json alone an absent file is none. The
        # others may be absent, and out of reach looks the same: so config.json is asked for first.
        strict = file == "config.json"
        try:
            found = cached_file(self.name, file, _raise_exceptions_for_missing_entries=strict, **options)
        except OSError as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"{self.name}: no folder of that name, and not in the hub: {first}"
            ) from error
        return None if found is None else Path(found)

    def text(self, file: str) -> str | None:
        path = self.path(file)
        try:
            return None if path is None else path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.name}/{file}: expected UTF-8 text ({error})") from error

    def json(self, file: str) -> Json:
        text = self.text(file)
        if text is None:
            return {}
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise CheckpointError(
                f"{self.name}/{file}: line {error.lineno} is no JSON: {error.msg}"
            ) from error
        if not isinstance(values, dict):
            raise CheckpointError(
                f"{self.name}/{file}: expected settings by name, got {type(values).__name__}"
            )
        return values

    def templates(self) -> dict[str, str]:
        """Templates besides the default one. The hub's are not listed: a name would cost a request."""
        if self.folder is None:
            return {}
        files = sorted((self.folder / "additional_chat_templates").glob("*.jinja"))
        return {file.stem: file.read_text(encoding="utf-8") for file in files}
