"""What happens to a frame or tile between file and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from llava_next_video.errors import ConfigError
from llava_next_video.size import Size

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
ChannelOrder = Literal["channels_first", "channels_last", "none"]
TensorKind = Literal["pt", "np"]

RESAMPLES: tuple[Resample, ...] = get_args(Resample)
"""In the order of Pillow's numbers: `RESAMPLES[3]` is bicubic."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSettings:
    """The steps of preprocessing, parsed; a step that is None is skipped.

    Attributes:
        shortest_edge: Length in pixels that the shorter side gets, the aspect kept.
        exact: The size a frame gets, whatever its aspect; not together with `shortest_edge`.
        resample: The filter of the resize.
        crop: Central window that is kept; smaller frames are padded with black.
        rescale: Factor on the pixel values, before the normalisation.
        mean: What is subtracted from each channel, together with `std`.
        std: What each channel is divided by.
        convert_rgb: Grey becomes RGB, and alpha is laid on white.
    """

    shortest_edge: int | None
    exact: Size | None
    resample: Resample
    crop: Size | None
    rescale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    convert_rgb: bool

    def resized(self, frame: Size) -> Size:
        """Size of a frame after the resize; the longer side is rounded down.

        Source: transformers, `image_transforms.py`, `get_resize_output_image_size`.
        """
        if self.exact is not None:
            return self.exact
        if self.shortest_edge is None:
            return frame
        short, long = sorted(frame)
        longer = int(self.shortest_edge * long / short)
        if frame.width <= frame.height:
            return Size(longer, self.shortest_edge)
        return Size(self.shortest_edge, longer)

    def seen(self, frame: Size) -> Size:
        """Size of a frame as the vision tower sees it."""
        return self.crop or self.resized(frame)


def read_settings(values: Mapping[str, object]) -> PixelSettings:
    """The steps behind the names of a preprocessor_config.json (`do_resize`, `size`, ...).

    Raises:
        ConfigError: A value that cannot be honoured; its name is in the message.
    """
    shortest_edge, exact = read_size(values["size"]) if values["do_resize"] else (None, None)
    normalise = bool(values["do_normalize"])
    return PixelSettings(
        shortest_edge=shortest_edge,
        exact=exact,
        resample=read_resample(values["resample"]),
        crop=read_crop_size(values["crop_size"]) if values["do_center_crop"] else None,
        rescale=_number("rescale_factor", values["rescale_factor"]) if values["do_rescale"] else None,
        mean=_per_channel("image_mean", values["image_mean"]) if normalise else None,
        std=_per_channel("image_std", values["image_std"]) if normalise else None,
        convert_rgb=bool(values["do_convert_rgb"]),
    )


def read_size(size: object) -> tuple[int | None, Size | None]:
    """A `size` as its shortest edge or as an exact size; the other is None.

    >>> read_size({"shortest_edge": 336}), read_size({"height": 384, "width": 384})
    ((336, None), (None, Size(height=384, width=384)))
    """
    if isinstance(size, int) and size > 0:
        return size, None
    match size:
        case {"shortest_edge": int(edge), **rest} if edge > 0 and not any(rest.values()):
            return edge, None
        case {"height": int(height), "width": int(width), **rest} if not any(rest.values()):
            if min(height, width) > 0:
                return None, Size(height, width)
    raise ConfigError(
        f"size is {size!r}; expected {{'shortest_edge': 336}} or {{'height': 336, 'width': 336}}"
    )


def read_crop_size(crop_size: object) -> Size:
    """A `crop_size`: one number for a square, or a height and a width.

    >>> read_crop_size(336)
    Size(height=336, width=336)
    """
    if isinstance(crop_size, int) and crop_size > 0:
        return Size(crop_size, crop_size)
    match crop_size:
        case {"height": int(height), "width": int(width)} if min(height, width) > 0:
            return Size(height, width)
    raise ConfigError(f"crop_size is {crop_size!r}; expected {{'height': 336, 'width': 336}}")


def read_resample(resample: object) -> Resample:
    """A filter by Pillow's number or by name.

    >>> read_resample(3), read_resample("bilinear")
    ('bicubic', 'bilinear')
    """
    if isinstance(resample, int) and 0 <= resample < len(RESAMPLES):
        return RESAMPLES[int(resample)]
    if resample in RESAMPLES:
        return resample
    raise ConfigError(f"resample is {resample!r}; expected one of {', '.join(RESAMPLES)} or Pillow's number")


def read_channel_order(name: str, order: object) -> ChannelOrder | None:
    """A `data_format` or `input_data_format`: a name, transformers' enumeration, or None."""
    order = getattr(order, "value", order)
    if order is None or order in get_args(ChannelOrder):
        return cast("ChannelOrder | None", order)
    raise ConfigError(f"{name} is {order!r}; expected {', '.join(get_args(ChannelOrder))} or None")


def read_tensor_kind(return_tensors: object) -> TensorKind | None:
    """A `return_tensors`: `pt`, `np`, or None for lists of arrays."""
    kind = getattr(return_tensors, "value", return_tensors)
    if kind is None or kind in get_args(TensorKind):
        return cast("TensorKind | None", kind)
    if kind in ("tf", "jax", "mlx"):
        raise ConfigError(
            f"return_tensors={kind!r}: this package makes torch and numpy arrays; "
            f"use 'np' and convert, or 'pt'"
        )
    raise ConfigError(f"return_tensors is {kind!r}; expected 'pt', 'np' or None")


def read_pinpoints(pinpoints: object) -> tuple[Size, ...]:
    """An `image_grid_pinpoints`: pairs of height and width in pixels, in the order that settles ties."""
    if isinstance(pinpoints, Sequence) and pinpoints and not isinstance(pinpoints, str):
        pairs = [tuple(pair) for pair in pinpoints if isinstance(pair, Sequence)]
        if len(pairs) == len(pinpoints) and all(
            len(pair) == 2 and all(isinstance(side, int) and side > 0 for side in pair) for pair in pairs
        ):
            return tuple(Size(*pair) for pair in pairs)
    raise ConfigError(f"image_grid_pinpoints is {pinpoints!r}; expected [[height, width], ...] in pixels")


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise ConfigError(f"{name} is {value!r}; expected a number")


def _per_channel(name: str, value: object) -> tuple[float, ...]:
    if isinstance(value, int | float):
        return (float(value),) * 3
    if isinstance(value, Sequence) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        return tuple(float(one) for one in value)
    raise ConfigError(f"{name} is {value!r}; expected one number, or three for red, green and blue")
