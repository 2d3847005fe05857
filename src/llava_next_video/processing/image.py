"""Pictures to `pixel_values` and `image_sizes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from PIL.Image import Resampling
from transformers import BatchFeature

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.processing.configured import Configured
from llava_next_video.processing.folder import ProcessorFiles
from llava_next_video.processing.pictures import Tiles, each_picture, picture_pixels, read_picture, tile_side
from llava_next_video.processing.settings import (
    PixelSettings,
    read_channel_order,
    read_pinpoints,
    read_tensor_kind,
)
from llava_next_video.size import Size

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


class LlavaNextImageProcessor(Configured):
    """Pictures as AnyRes tiles: the squashed whole first, then the tiles of the best canvas, row by row.

    Takes a Pillow picture, an array or tensor in any channel order, a `Picture`, a path, URL, bytes or file
    object, or any of them in lists.

    Args:
        size: `{"shortest_edge": 224}` (the default), or an exact height and width; also the base tile.
        image_grid_pinpoints: Height and width of each canvas, in the order that settles ties.
        resample: Pillow's number or a name.
        crop_size: Side of the tiles.
        do_pad: Whether a batch gets one number of tiles, by adding tiles of zeros.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values", "image_sizes"]
    type_key = "image_processor_type"
    saved_as = "LlavaNextImageProcessor"
    file_name = "preprocessor_config.json"
    do_pad: bool
    do_resize: bool

    def __init__(
        self,
        do_resize: bool = True,
        size: Mapping[str, int] | int | None = None,
        image_grid_pinpoints: Sequence[Sequence[int]] | None = None,
        resample: Resampling | int | str = Resampling.BICUBIC,
        do_center_crop: bool = True,
        crop_size: Mapping[str, int] | int | None = None,
        do_rescale: bool = True,
        rescale_factor: int | float = 1 / 255,
        do_normalize: bool = True,
        image_mean: int | float | Sequence[float] | None = None,
        image_std: int | float | Sequence[float] | None = None,
        do_convert_rgb: bool = True,
        do_pad: bool = True,
        **kwargs: object,
    ) -> None:
        self.refuse_unknown(kwargs)
        given = {key: value for key, value in locals().items() if key not in ("self", "kwargs", "__class__")}
        self._remember(**given)
        self.image_grid_pinpoints = [list(pair) for pair in image_grid_pinpoints or PINPOINTS]
        self.settings()

    def settings(self, **overrides: object) -> PixelSettings:
        """The parsed settings, with those of a call in place of None.

        Tiles are cut from a resized picture in any case; `do_resize` is about a second resize, of each tile.

        Raises:
            ConfigError: A value that cannot be honoured.
        """
        wanted = overrides.pop("do_resize", None)
        parsed = super().settings(**overrides, do_resize=True)
        tile = Size(tile_side(parsed), tile_side(parsed))
        if not (self.do_resize if wanted is None else wanted) and parsed.resized(tile) != tile:
            raise ConfigError(
                f"do_resize=False, but tiles of {tile.height} pixels are not of size {parsed.resized(tile)}; "
                "give size and crop_size the same number"
            )
        return parsed

    @property
    def pinpoints(self) -> tuple[Size, ...]:
        """The canvases, parsed."""
        return read_pinpoints(self.image_grid_pinpoints)

    @classmethod
    def section(cls, files: ProcessorFiles) -> Mapping[str, object]:
        return files.image

    def __call__(self, images: object, **kwargs: object) -> BatchFeature:
        """The same as `preprocess`."""
        return self.preprocess(images, **kwargs)  # type: ignore[arg-type]

    def preprocess(
        self,
        images: object,
        do_resize: bool | None = None,
        size: Mapping[str, int] | int | None = None,
        image_grid_pinpoints: Sequence[Sequence[int]] | None = None,
        resample: Resampling | int | str | None = None,
        do_center_crop: bool | None = None,
        crop_size: Mapping[str, int] | int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: int | float | None = None,
        do_normalize: bool | None = None,
        image_mean: int | float | Sequence[float] | None = None,
        image_std: int | float | Sequence[float] | None = None,
        do_pad: bool | None = None,
        do_convert_rgb: bool | None = None,
        return_tensors: object = None,
        data_format: object = "channels_first",
        input_data_format: object = None,
    ) -> BatchFeature:
        """The tiles of one picture or a batch; every argument that is None keeps the processor's setting.

        Gives `pixel_values` (pictures x tiles x channels x height x width; a list of one array a picture for
        `do_pad=False` or `return_tensors=None`) and `image_sizes` (height and width of each picture).

        Raises:
            MediaError: Something that is no picture.
            ConfigError: A setting that cannot be honoured.
        """
        given = locals()
        settings = self.settings(**{name: given[name] for name in self.names})
        if read_channel_order("data_format", data_format) != "channels_first":
            raise ConfigError(f"data_format is {data_format!r}; tiles come channels_first only")
        order = read_channel_order("input_data_format", input_data_format)
        pinpoints = self.pinpoints if image_grid_pinpoints is None else read_pinpoints(image_grid_pinpoints)
        pictures = [
            read_picture(image, order=order, convert_rgb=settings.convert_rgb)
            for image in each_picture(images)
        ]
        if not pictures:
            raise MediaError("the list of pictures is empty; give at least one picture, or None")
        tiles = [picture_pixels(picture, settings, pinpoints) for picture in pictures]
        sizes = [(picture.height, picture.width) for picture in pictures]
        if self.do_pad if do_pad is None else do_pad:
            tiles = _padded(tiles)
        return BatchFeature(_batched(tiles, sizes, return_tensors))


def _padded(tiles: list[Tiles]) -> list[Tiles]:
    """Zeros up to the most tiles that a picture of the batch has."""
    most = max(len(one) for one in tiles)
    return [np.pad(one, ((0, most - len(one)), (0, 0), (0, 0), (0, 0))) for one in tiles]


def _batched(tiles: list[Tiles], sizes: list[tuple[int, int]], return_tensors: object) -> dict[str, object]:
    kind = read_tensor_kind(return_tensors)
    alike = len({len(one) for one in tiles}) == 1
    match kind:
        case "pt":
            tensors = [torch.from_numpy(one) for one in tiles]
            return {
                "pixel_values": torch.stack(tensors) if alike else tensors,
                "image_sizes": torch.tensor(sizes),
            }
        case "np":
            return {"pixel_values": np.stack(tiles) if alike else tiles, "image_sizes": np.array(sizes)}
    return {"pixel_values": tiles, "image_sizes": sizes}
