"""The keywords of a processor's call, sorted and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np
from PIL import Image
from torch import Tensor

from llava_next_video.errors import ConfigError, PromptError
from llava_next_video.media import Clip, Picture
from llava_next_video.processing.configured import Configured
from llava_next_video.processing.image import LlavaNextImageProcessor
from llava_next_video.processing.prompt import Side
from llava_next_video.processing.settings import PixelSettings, TensorKind, read_pinpoints, read_tensor_kind
from llava_next_video.size import Size

TEXT = frozenset(
    {
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "padding_side",
        "add_special_tokens",
        "pad_to_multiple_of",
        "return_mm_token_type_ids",
    }
)
BOTH = frozenset({*Configured.names, "input_data_format"})
IMAGES = frozenset({"image_grid_pinpoints", "do_pad"})
VIDEOS = frozenset({"do_sample_frames", "num_frames", "fps", "sampler", "video_metadata", "return_metadata"})
GROUPS: Mapping[str, frozenset[str]] = {
    "common_kwargs": TEXT | BOTH | IMAGES | VIDEOS,
    "text_kwargs": TEXT,
    "images_kwargs": BOTH | IMAGES,
    "videos_kwargs": BOTH | VIDEOS,
}
"""transformers' groups of keywords, and what each may hold."""
KNOWN = sorted(TEXT | BOTH | IMAGES | VIDEOS | {*GROUPS, "images", "videos"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """A call's keywords, parsed; `images` and `videos` are for the picture and the clip processor.

    `add_special_tokens` None lets the text decide.
    """

    padding: object = False
    truncation: bool = False
    max_length: int | None = None
    return_tensors: TensorKind | None = "pt"
    padding_side: Side | None = None
    add_special_tokens: bool | None = None
    pad_to_multiple_of: int | None = None
    return_mm_token_type_ids: bool = False
    mark_spoken: bool = False
    from_template: bool = False
    images: Mapping[str, object] = field(default_factory=dict)
    videos: Mapping[str, object] = field(default_factory=dict)

    def picture_settings(self, processor: LlavaNextImageProcessor) -> tuple[PixelSettings, tuple[Size, ...]]:
        """The settings of pictures with this call's overrides."""
        steps = {name: value for name, value in self.images.items() if name in Configured.names}
        pinpoints = self.images.get("image_grid_pinpoints")
        return processor.settings(**steps), processor.pinpoints if pinpoints is None else read_pinpoints(
            pinpoints
        )

    @staticmethod
    def split(template: str, given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """The keywords of a call, and the variables that the template reads.

        Raises:
            ConfigError: A keyword that is neither.
        """
        call = {name: value for name, value in given.items() if name in KNOWN}
        others = {name: value for name, value in given.items() if name not in KNOWN}
        for name in others:
            if not re.search(rf"\b{re.escape(name)}\b", template):
                raise _unknown(name)
        return call, others


def read_call(
    kwargs: Mapping[str, object], *, mark_spoken: bool = False, from_template: bool = False
) -> CallOptions:
    """The options of a call from its keywords, flat or in transformers' groups.

    Raises:
        ConfigError: An unknown keyword, or a value that cannot be honoured.
    """
    grouped = {group: _group(group, kwargs.get(group)) for group in GROUPS}
    flat = {name: value for name, value in kwargs.items() if name not in GROUPS}
    for name in flat:
        if name not in KNOWN:
            raise _unknown(name)
    flat |= grouped["common_kwargs"]
    text = {name: value for name, value in flat.items() if name in TEXT} | grouped["text_kwargs"]
    images = {name: value for name, value in flat.items() if name in BOTH | IMAGES} | grouped["images_kwargs"]
    videos = {name: value for name, value in flat.items() if name in BOTH | VIDEOS} | grouped["videos_kwargs"]
    side = text.get("padding_side")
    if side not in (None, "left", "right"):
        raise ConfigError(f"padding_side is {side!r}; expected 'left' or 'right'")
    return CallOptions(
        padding=text.get("padding", False),
        truncation=_truncation(text.get("truncation")),
        max_length=_whole("max_length", text.get("max_length")),
        return_tensors=read_tensor_kind(text.get("return_tensors", "pt")),
        padding_side=side,
        add_special_tokens=_yes_or_no("add_special_tokens", text.get("add_special_tokens")),
        pad_to_multiple_of=_whole("pad_to_multiple_of", text.get("pad_to_multiple_of")),
        return_mm_token_type_ids=bool(
            _yes_or_no("return_mm_token_type_ids", text.get("return_mm_token_type_ids"))
        ),
        mark_spoken=mark_spoken,
        from_template=from_template,
        images=images,
        videos=videos,
    )


def refuse_swapped(text: object, images: object, videos: object, placeholders: Sequence[str]) -> None:
    """Refuse media where text was expected and text where media were.

    Raises:
        PromptError: Naming the argument and what it was.
    """
    order = (
        "the order is text, images, videos (transformers 5 has images first); name the arguments to be safe"
    )
    if text is not None and not _is_text(text):
        raise PromptError(f"text is {_what(text)}; {order}")
    for name, medium in (("images", images), ("videos", videos)):
        words = [
            one for one in (medium if isinstance(medium, list | tuple) else [medium]) if isinstance(one, str)
        ]
        if any(placeholder in word for word in words for placeholder in placeholders):
            raise PromptError(f"{name} is a text with placeholders, {words[0][:60]!r}; {order}")


def _is_text(text: object) -> bool:
    return isinstance(text, str) or (
        isinstance(text, list | tuple) and bool(text) and all(isinstance(one, str) for one in text)
    )


def _what(value: object) -> str:
    match value:
        case Image.Image() | Picture():
            return "a picture"
        case np.ndarray() | Tensor():
            return f"an array of shape {tuple(value.shape)}"
        case Clip():
            return "a clip"
        case os.PathLike():
            return "a path"
        case list() | tuple():
            return f"a list that starts with {_what(value[0])}" if value else "an empty list"
    return f"a {type(value).__name__}"


def _truncation(truncation: object) -> bool:
    truncation = getattr(truncation, "value", truncation)
    if truncation in (None, False, "do_not_truncate"):
        return False
    if truncation in (True, "longest_first", "only_first"):
        return True
    raise ConfigError(f"truncation is {truncation!r}; expected True or False")


def _group(group: str, given: object) -> dict[str, object]:
    """The keywords of one group, each of which must belong there."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{group} is {given!r}; expected keywords by name, such as {{'padding': True}}")
    for name in given:
        if name not in KNOWN:
            raise _unknown(name)
        if name not in GROUPS[group]:
            homes = [home for home, names in GROUPS.items() if name in names and home != "common_kwargs"]
            raise ConfigError(
                f"{group} takes no {name!r}; it belongs to {' or '.join(homes) or 'the call itself'}"
            )
    return dict(given)


def _whole(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0:
        return int(value)
    raise ConfigError(f"{name} is {value!r}; expected a whole number above 0, or None")


def _yes_or_no(name: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise ConfigError(f"{name} is {value!r}; expected True, False or None")


def _unknown(name: str) -> ConfigError:
    near = get_close_matches(name, KNOWN, n=1)
    return ConfigError(
        f"unknown keyword {name!r}{f'; did you mean {near[0]!r}?' if near else ''} known: {', '.join(KNOWN)}"
    )
