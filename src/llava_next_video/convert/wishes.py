"""What a user says over a checkpoint's config and over what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from llava_next_video.errors import ConfigError
from llava_next_video.geometry import NewlineMode, PoolMode
from llava_next_video.processing.chat import TEMPLATE_NAMES, chat_template


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Settings that come before all others; None leaves one to the checkpoint and the registry.

    Attributes:
        template: The name of a chat template, or a file with one.
        rope_factor: How far to stretch the positions.
        video_newline: Where newlines stand in a clip.
        pool_before_projector: Frames are pooled, then projected.
        spatial_pool_mode: How frames are pooled.
        spatial_pool_stride: Patches a side that become one.
    """

    template: str | None = None
    rope_factor: float | None = None
    video_newline: NewlineMode | None = None
    pool_before_projector: bool | None = None
    spatial_pool_mode: PoolMode | None = None
    spatial_pool_stride: int | None = None

    def chat_template(self, usual: str | None, what: str) -> str:
        """The text of the template: the wanted one, or the usual one of that name.

        Raises:
            ConfigError: neither is known, or there is no such name or file.
        """
        wanted = self.template or usual
        names = ", ".join(TEMPLATE_NAMES)
        if wanted is None:
            raise ConfigError(
                f"{what} is no published checkpoint, so its chat template is not known; "
                f"give --template: {names}, or a file"
            )
        if wanted in TEMPLATE_NAMES:
            return chat_template(wanted)
        if not Path(wanted).is_file():
            raise ConfigError(f"no chat template {wanted!r}; known: {names}, or a file with one")
        return Path(wanted).read_text(encoding="utf-8")


def read_wishes(
    *,
    template: str | None = None,
    rope_factor: float | None = None,
    video_newline: str | None = None,
    pool_order: str | None = None,
    spatial_pool_mode: str | None = None,
    spatial_pool_stride: int | None = None,
) -> Wishes:
    """Wishes in words, checked before anything is read.

    Raises:
        ConfigError: a word that is none of the choices.
    """
    return Wishes(
        template=template,
        rope_factor=rope_factor,
        video_newline=_one_of("newline", video_newline, get_args(NewlineMode)),
        pool_before_projector=(
            None if pool_order is None else _one_of("pool", pool_order, ("before", "after")) == "before"
        ),
        spatial_pool_mode=_one_of("pool-mode", spatial_pool_mode, get_args(PoolMode)),
        spatial_pool_stride=spatial_pool_stride,
    )


def _one_of(name: str, value: str | None, choices: tuple[str, ...]) -> Any:
    if value is not None and value not in choices:
        raise ConfigError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
    return value
