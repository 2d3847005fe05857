"""Visual tokens of a medium, by the settings of a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llava_next_video.errors import ConfigError
from llava_next_video.geometry import NewlineMode, PoolMode, image_layout, video_layout
from llava_next_video.long_video import ClipLayout, SlowFast
from llava_next_video.processing.pictures import tile_side
from llava_next_video.processing.settings import PixelSettings
from llava_next_video.size import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """What the model does to patches, as far as it changes their number; a patch of None was never set."""

    patch: int | None
    stride: int
    pooling: PoolMode
    newline: NewlineMode
    tile_limit: int | None
    slow_fast: SlowFast | None = None
    frame_token: bool = False

    def picture(self, size: Size, settings: PixelSettings, pinpoints: Sequence[Size]) -> int:
        """Visual tokens of a picture of that many pixels."""
        return image_layout(
            size, pinpoints, tile=tile_side(settings), patch=self._patch(), tile_limit=self.tile_limit
        ).tokens

    def clip(self, frames: int, seen: Size, wish: ClipLayout | None = None) -> int:
        """Visual tokens of a clip whose frames have that many pixels as the vision tower sees them.

        A wish comes before what the checkpoint does.
        """
        return video_layout(
            frames,
            tile=seen,
            patch=self._patch(),
            stride=self.stride,
            mode=self.pooling,
            newline=self.newline,
            slow_fast=self.slow_fast,
            frame_token=self.frame_token,
            wish=wish,
        ).tokens

    def _patch(self) -> int:
        if self.patch is None:
            raise ConfigError(
                "patch_size is not set; pass patch_size=14, or load a folder with a config.json"
            )
        return self.patch
