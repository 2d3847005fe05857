"""A picture to the tiles that the vision tower sees."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.geometry import best_canvas, fitted
from llava_next_video.media import Picture, Source, on_white, read_image
from llava_next_video.processing.settings import RESAMPLES, ChannelOrder, PixelSettings
from llava_next_video.size import Size

Pixels = UInt8[np.ndarray, "_ _ 3"]
Tiles = Float32[np.ndarray, "_ 3 height width"]


def each_picture(images: object) -> Iterator[object]:
    """The pictures of a batch, nested or not, or the one picture that was given."""
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        yield from images
    elif isinstance(images, Sequence) and not isinstance(images, str | bytes):
        for image in images:
            yield from each_picture(image)
    else:
        yield images


def read_picture(image: object, *, order: ChannelOrder | None, convert_rgb: bool) -> Image.Image:
    """One picture in RGB; a path, URL, bytes or file is read.

    `order` says where the channels are in an array; None finds out. An array of floats holds whole numbers
    from 0 to 255, or values from 0 to 1, which are taken for 256ths.

    Raises:
        MediaError: It is no picture, or has values outside those ranges.
    """
    if isinstance(image, Picture):
        return image.image
    if isinstance(image, np.ndarray | Tensor):
        image = _from_array(np.asarray(image.cpu()) if isinstance(image, Tensor) else image, order)
    elif not isinstance(image, Image.Image):
        return read_image(encoded_source(image)).image
    if 0 in image.size:
        raise MediaError(f"the picture has {image.width}x{image.height} pixels; expected at least one")
    if image.mode != "RGB" and not convert_rgb:
        raise MediaError(f"the picture is {image.mode}, and do_convert_rgb=False; expected RGB")
    return as_rgb(image)


def encoded_source(source: object) -> Source:
    """The source, if it is one that media can open.

    Raises:
        MediaError: It is nothing of the kind.
    """
    if isinstance(source, str | bytes | os.PathLike) or hasattr(source, "read"):
        return cast(Source, source)
    raise MediaError(
        f"{type(source).__name__} is no clip or picture; "
        "give a path, URL, bytes, file object, array or Pillow picture"
    )


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; one that is RGB already stays as it is, also with a transparent colour.

    Source: transformers, `image_transforms.py`, `convert_to_rgb`.
    """
    return image if image.mode == "RGB" else on_white(image)


def picture_pixels(image: Image.Image, settings: PixelSettings, pinpoints: Sequence[Size]) -> Tiles:
    """The base tile, then the tiles of the best canvas, rescaled and normalised.

    The base tile is the whole picture, squashed. On the canvas the picture keeps its aspect and is padded
    with black, before the normalisation; an odd row or column of padding stands below or right.

    Source: transformers, `image_processing_pil_llava_next.py`, `LlavaNextImageProcessorPil`.
    """
    side = tile_side(settings)
    resample = Image.Resampling(RESAMPLES.index(settings.resample))
    base = settings.exact or Size(side, side)
    if settings.shortest_edge is not None:
        base = Size(settings.shortest_edge, settings.shortest_edge)
    tiles = [np.asarray(_resized(image, base, resample))]
    tiles += _cut(_on_canvas(image, best_canvas(Size(image.height, image.width), pinpoints), resample), side)
    return _normalised([_finished(tile, settings, resample) for tile in tiles], settings)


def tile_side(settings: PixelSettings) -> int:
    """Pixels of a side of the square tiles into which a canvas is cut.

    Raises:
        ConfigError: Tiles that are not square, or a crop that would pad every tile.
    """
    tile = settings.crop or settings.exact or Size(settings.shortest_edge or 0, settings.shortest_edge or 0)
    if tile.height != tile.width or tile.height == 0:
        raise ConfigError(
            f"tiles of {tile.height}x{tile.width} pixels; pictures are cut into squares: "
            "set crop_size (or size) to a square"
        )
    smallest = settings.resized(tile)
    if settings.crop is not None and min(smallest) < tile.height:
        raise ConfigError(
            f"crop_size {tile.height} is larger than size {min(smallest)}; every tile would be padded"
        )
    return tile.height


def _from_array(image: np.ndarray, order: ChannelOrder | None) -> Image.Image:
    if image.ndim == 2 or order == "none":
        image = image[..., None]
    elif image.ndim != 3:
        raise MediaError(f"a picture has height x width x channels; got an array of shape {image.shape}")
    elif order == "channels_first" or (order is None and image.shape[0] in (1, 3, 4)):
        image = np.moveaxis(image, 0, -1)
    if image.shape[-1] not in (1, 3, 4):
        raise MediaError(
            f"a picture with {image.shape[-1]} channels; expected 1, 3 or 4 (or input_data_format)"
        )
    if image.size == 0:
        raise MediaError(f"the picture is an empty array of shape {image.shape}")
    image = _as_bytes(image)
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[-1] == 1 else image))


def _as_bytes(image: np.ndarray) -> UInt8[np.ndarray, "height width channels"]:
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if np.issubdtype(image.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(image * 255).astype(np.uint8)
    if low < 0 or high > 255 or not np.array_equal(image, np.rint(image)):
        raise MediaError(
            f"a picture of {image.dtype} with values from {low:g} to {high:g}; "
            "expected whole numbers from 0 to 255, or floats from 0 to 1"
        )
    return image.astype(np.uint8)


def _resized(image: Image.Image, size: Size, resample: Image.Resampling) -> Image.Image:
    return image.resize((size.width, size.height), resample)


def _on_canvas(image: Image.Image, canvas: Size, resample: Image.Resampling) -> Pixels:
    size = fitted(Size(image.height, image.width), canvas)
    top, left = (canvas.height - size.height) // 2, (canvas.width - size.width) // 2
    padded = np.zeros((*canvas, 3), dtype=np.uint8)
    padded[top : top + size.height, left : left + size.width] = np.asarray(_resized(image, size, resample))
    return padded


def _cut(canvas: Pixels, side: int) -> list[Pixels]:
    """Square tiles, row by row."""
    height, width = canvas.shape[:2]
    if height % side or width % side:
        raise ConfigError(
            f"image_grid_pinpoints has ({height}, {width}), which is no whole number of tiles of {side} "
            f"pixels; use multiples of {side}"
        )
    return [
        canvas[top : top + side, left : left + side]
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def _finished(tile: Pixels, settings: PixelSettings, resample: Image.Resampling) -> Pixels:
    """Every tile goes through the steps of a plain picture, too; mostly they change nothing."""
    size = Size(*tile.shape[:2])
    wanted = settings.resized(size)
    if wanted != size:
        tile = np.asarray(_resized(Image.fromarray(tile), wanted, resample))
    if settings.crop is None:
        return tile
    top, left = ((have - keep) // 2 for have, keep in zip(wanted, settings.crop, strict=True))
    return tile[top : top + settings.crop.height, left : left + settings.crop.width]


def _normalised(tiles: Sequence[Pixels], settings: PixelSettings) -> Tiles:
    """Each byte looked up in the table of what the steps make of it: the same bits, once a value."""
    levels = np.arange(256, dtype=np.float64)
    if settings.rescale is not None:
        levels = levels * settings.rescale
    table = np.repeat(levels.astype(np.float32)[None], 3, axis=0)
    if settings.mean is not None and settings.std is not None:
        mean, std = (np.array(values, dtype=np.float32)[:, None] for values in (settings.mean, settings.std))
        table = (table - mean) / std
    pixels = np.empty((len(tiles), 3, *tiles[0].shape[:2]), dtype=np.float32)
    for place, tile in zip(pixels, tiles, strict=True):
        for channel in range(3):
            place[channel] = table[channel][tile[..., channel]]
    return pixels
