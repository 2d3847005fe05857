"""Settings by their public names, in and out of JSON files."""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from llava_next_video.errors import ConfigError
from llava_next_video.processing.folder import ProcessorFiles, read_processor_files
from llava_next_video.processing.settings import CLIP_MEAN, CLIP_STD, PixelSettings, read_settings

SILENT = frozenset(
    {
        "processor_class",
        "image_processor_type",
        "video_processor_type",
        "feature_extractor_type",
        "auto_map",
        "aspect_ratio_setting",
        "data_format",
        "input_data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "do_pad",
        "pad_size",
        "return_metadata",
        "return_tensors",
        "video_metadata",
        "_valid_processor_keys",
    }
)
"""Keys that transformers writes into these files and that change nothing in the pixels of this family."""

DEFAULT_SIDE = 224

# Not `Self`: the shape checks of the tests decorate methods, and those of classes only can check it.
Made = TypeVar("Made", bound="Configured")


class Configured:
    """What the picture and the clip processor share: named settings that a call may override."""

    names: ClassVar[tuple[str, ...]] = (
        "do_resize",
        "size",
        "resample",
        "do_center_crop",
        "crop_size",
        "do_rescale",
        "rescale_factor",
        "do_normalize",
        "image_mean",
        "image_std",
        "do_convert_rgb",
    )
    type_key: ClassVar[str]
    saved_as: ClassVar[str]
    file_name: ClassVar[str]
    _known: ClassVar[tuple[str, ...]]  # a look at a signature takes as long as tokenising a prompt

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._known = tuple(name for name in inspect.signature(cls).parameters if name != "kwargs")

    def _remember(self, **values: object) -> None:
        """Take the settings as attributes; the checkpoints' family fills in what is None."""
        fallback: dict[str, object] = {
            "size": {"shortest_edge": DEFAULT_SIDE},
            "crop_size": {"height": DEFAULT_SIDE, "width": DEFAULT_SIDE},
            "image_mean": list(CLIP_MEAN),
            "image_std": list(CLIP_STD),
        }
        for name, value in values.items():
            value = fallback.get(name) if value is None else value
            if name == "size" and isinstance(value, int):
                value = {"shortest_edge": value}
            if name == "crop_size" and isinstance(value, int):
                value = {"height": value, "width": value}
            setattr(self, name, value)

    def settings(self, **overrides: object) -> PixelSettings:
        """The parsed settings, with those of a call in place of None.

        Raises:
            ConfigError: An unknown name, or a value that cannot be honoured.
        """
        self.refuse_unknown(overrides)
        values = {name: getattr(self, name) for name in self.names}
        values.update({name: value for name, value in overrides.items() if value is not None})
        return read_settings(values)

    @classmethod
    def refuse_unknown(cls, given: Mapping[str, object]) -> None:
        """Refuse a keyword that no setting has, with the nearest that exists."""
        known = sorted(cls._known)
        for name in given:
            if name not in known and name not in SILENT:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise ConfigError(f"{cls.__name__} has no setting {name!r}{hint}")

    def to_dict(self) -> dict[str, object]:
        """The settings by name, as they are saved."""
        values: dict[str, object] = {name: getattr(self, name) for name in self._known}
        values["resample"] = (
            int(values["resample"]) if isinstance(values["resample"], int) else values["resample"]
        )
        return {name: _plain(value) for name, value in values.items() if value is not None} | {
            self.type_key: self.saved_as
        }

    def to_json_string(self) -> str:
        """The settings as JSON, sorted by name."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the settings file into a folder, which is made if it is not there; gives its path."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.file_name
        path.write_text(self.to_json_string(), encoding="utf-8")
        return [str(path)]

    @classmethod
    def from_dict(cls: type[Made], values: Mapping[str, object], **overrides: object) -> Made:
        """Settings out of a file: what does not concern the pixels is passed over, the unknown is named."""
        known = set(inspect.signature(cls).parameters) - {"kwargs"}
        cls.refuse_unknown(overrides)
        unknown = sorted(set(values) - known - SILENT)
        if unknown:
            warnings.warn(
                f"{cls.__name__}: these settings of the file are not used here: {', '.join(unknown)}",
                stacklevel=2,
            )
        return cls(**{name: value for name, value in values.items() if name in known} | overrides)

    @classmethod
    def from_pretrained(
        cls: type[Made], pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: object
    ) -> Made:
        """Settings of a checkpoint folder or hub name; `kwargs` override them.

        Raises:
            CheckpointError: The folder or name does not exist, or its files are no JSON.
        """
        hub, overrides = ProcessorFiles.split_hub_options(kwargs)
        files = read_processor_files(pretrained_model_name_or_path, **hub)
        return cls.from_dict(cls.section(files), **overrides)

    @classmethod
    def section(cls, files: ProcessorFiles) -> Mapping[str, object]:
        """The part of a checkpoint's files that speaks about this processor."""
        raise NotImplementedError


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value
