"""What a user says over a checkpoint's config and over what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
