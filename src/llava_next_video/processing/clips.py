"""Whatever a caller calls a clip, as frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media import Clip, Sampling, moments, read_clip
from llava_next_video.processing.pictures import as_rgb, encoded_source
from llava_next_video.processing.settings import ChannelOrder

CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """Frames ready to be resized, a view of what was given, and where they came from.

    `order` is the channel order in which they were given; `indices` and the rest are None for frames that
    came without their clip.
    """

    frames: Shaped[Tensor, "frames channels height width"]
    order: ChannelOrder
    indices: tuple[int, ...] | None
    frame_count: int
    frames_per_second: float | None
    duration_s: float | None

    @property
    def metadata(self) -> dict[str, object]:
        """What is known, in the words of transformers' `VideoMetadata`."""
        return {
            "total_num_frames": self.frame_count,
            "fps": self.frames_per_second,
            "duration": self.duration_s,
            "frames_indices": None if self.indices is None else list(self.indices),
        }


def each_clip(videos: object) -> Iterator[object]:
    """The clips of a batch, or the one clip that was given.

    A list is a batch if it holds clips (paths, four-dimensional arrays, `Clip`s, lists) and one clip if it
    holds frames (pictures, three-dimensional arrays). Nested batches are flattened.
    """
    if isinstance(videos, np.ndarray | Tensor) and videos.ndim == 5:
        yield from videos
    elif isinstance(videos, Sequence) and not isinstance(videos, str | bytes):
        if not videos:
            raise MediaError("the list of clips is empty; give at least one clip, or None")
        if _is_frame(videos[0]):
            yield videos
        else:
            for video in videos:
                yield from each_clip(video)
    else:
        yield videos


def read_footage(
    video: object,
    *,
    sampling: Sampling | None,
    order: ChannelOrder | None,
    convert_rgb: bool,
    frames_per_second: float | None = None,
) -> Footage:
    """The frames of one clip; a path, URL or bytes is decoded, and only at the sampled moments.

    Frames that are handed over as such are all taken, unless a sampling is asked for. `order` says where the
    channels are in arrays; None finds out. `frames_per_second` is the rate of an array's frames.

    Raises:
        MediaError: It is no clip, or its frames do not fit together.
    """
    if not isinstance(video, Clip | np.ndarray | Tensor) and not _is_frames(video):
        video = read_clip(encoded_source(video), sampling or Sampling())
        sampling = None
    if isinstance(video, Clip):
        if sampling is not None and sampling != video.sampling:
            raise ConfigError(
                f"this clip was already read with {video.sampling}; the call or the processor's own settings "
                f"ask for {sampling}: read it so, or take it as it is: do_sample_frames=False, "
                "without num_frames, fps and sampler"
            )
        return Footage(
            frames=_as_tensor(video.frames).permute(0, 3, 1, 2),
            order="channels_last",
            indices=video.indices,
            frame_count=video.frame_count,
            frames_per_second=video.frames_per_second,
            duration_s=video.duration_s,
        )
    frames, found = _channels_first(_stacked(video), order)
    count, indices = len(frames), None
    if sampling is not None:
        indices = tuple(moments(count, sampling, frames_per_second))
        frames = frames[list(indices)]
    return Footage(
        frames=_as_rgb_frames(frames) if convert_rgb else frames,
        order=found,
        indices=indices,
        frame_count=count,
        frames_per_second=frames_per_second,
        duration_s=count / frames_per_second if frames_per_second else None,
    )


def rate_of(metadata: object) -> float | None:
    """Frames a second in a `video_metadata`, transformers' class or a mapping."""
    rate = metadata.get("fps") if isinstance(metadata, Mapping) else getattr(metadata, "fps", None)
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def infer_order(shape: Sequence[int]) -> ChannelOrder:
    """Where the channels are in the last three axes; first, when both ends could be them.

    >>> infer_order((8, 480, 640, 3)), infer_order((3, 480, 640))
    ('channels_last', 'channels_first')

    Source: transformers, `image_utils.py`, `infer_channel_dimension_format`.
    """
    if shape[-3] in CHANNELS:
        return "channels_first"
    if shape[-1] in CHANNELS:
        return "channels_last"
    raise MediaError(
        f"an array of shape {tuple(shape)} has no axis of 1, 3 or 4 channels; pass input_data_format"
    )


def _is_frame(item: object) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, np.ndarray | Tensor) and item.ndim in (2, 3))


def _is_frames(video: object) -> bool:
    return isinstance(video, Sequence) and not isinstance(video, str | bytes) and all(map(_is_frame, video))


def _stacked(video: object) -> Tensor:
    """One tensor out of an array or a list of frames."""
    if isinstance(video, np.ndarray | Tensor):
        return _as_tensor(video)
    assert isinstance(video, Sequence)
    frames = [
        _as_tensor(np.asarray(as_rgb(frame)) if isinstance(frame, Image.Image) else frame) for frame in video
    ]
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) > 1:
        raise MediaError(
            f"the frames of a clip have {len(shapes)} shapes, {sorted(shapes)[:3]}; expected one"
        )
    return torch.stack(frames)


def _as_tensor(array: object) -> Tensor:
    if not isinstance(array, Tensor):
        # torch would warn about memory it must not write to, although nothing here writes to it.
        array = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    tensor = array
    if tensor.dtype == torch.uint8 or tensor.dtype == torch.float32:
        return tensor
    if tensor.dtype.is_floating_point:
        return tensor.float()
    if tensor.dtype == torch.bool or tensor.amin() < 0 or tensor.amax() > 255:
        raise MediaError(f"frames of type {tensor.dtype}; expected values from 0 to 255, or floats")
    return tensor.to(torch.uint8)


def _channels_first(frames: Tensor, order: ChannelOrder | None) -> tuple[Tensor, ChannelOrder]:
    """A view of frames x channels x height x width, and the order in which they were."""
    if order == "none":
        if frames.ndim != 3:
            raise MediaError(
                f"input_data_format 'none' is frames x height x width; got {tuple(frames.shape)}"
            )
        return frames[:, None], order
    if frames.ndim == 3:
        frames = frames[None]
    if frames.ndim != 4 or 0 in frames.shape:
        raise MediaError(
            f"a clip has frames x height x width x channels; got the shape {tuple(frames.shape)}"
        )
    order = order or infer_order(frames.shape)
    if order == "channels_last":
        frames = frames.permute(0, 3, 1, 2)
    if frames.shape[1] not in CHANNELS:
        raise MediaError(f"frames have {frames.shape[1]} channels as {order}; expected 1, 3 or 4")
    return frames, order


def _as_rgb_frames(frames: Tensor) -> Tensor:
    """Grey repeated, alpha laid on white."""
    channels = frames.shape[1]
    if channels == 1:
        return frames.expand(-1, 3, -1, -1)
    if channels == 4:
        top = 255.0 if frames.dtype == torch.uint8 or frames.amax() > 1 else 1.0
        alpha = frames[:, 3:] / top
        blended = frames[:, :3] * alpha + (1 - alpha) * top
        return blended.round().to(torch.uint8) if frames.dtype == torch.uint8 else blended
    return frames
