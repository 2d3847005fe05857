"""Clips to `pixel_values_videos`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor
from transformers import BatchFeature

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.media import Sampling
from llava_next_video.processing.clips import Footage, each_clip, infer_order, rate_of, read_footage
from llava_next_video.processing.configured import Configured
from llava_next_video.processing.folder import ProcessorFiles
from llava_next_video.processing.frames import resized, video_pixels
from llava_next_video.processing.settings import (
    PixelSettings,
    read_channel_order,
    read_resample,
    read_size,
    read_tensor_kind,
)
from llava_next_video.size import Size

UNCAPPED = 1_000_000
"""As many frames as `fps` gives: transformers, too, knows no cap."""


class LlavaNextVideoImageProcessor(Configured):
    """Frames of clips as CLIP sees them: shortest edge resized, central square kept, normalised.

    Takes one clip or a batch: an array or tensor of frames in any channel order, a list of frames (arrays or
    Pillow pictures), a `Clip`, or a path, URL, bytes or file object, which is decoded. A file is looked at
    in 8 moments unless told otherwise; frames that are handed over are all taken, unless `num_frames` or
    `fps` is given.

    Args:
        size: `{"shortest_edge": 224}` (the default), or an exact height and width.
        image_grid_pinpoints: Kept for files that carry it; clips are not cut into tiles.
        resample: Pillow's number or a name: nearest, bilinear or bicubic.
        do_sample_frames: Whether arrays are sampled, too; None samples where `num_frames` or `fps` is given.
        num_frames: How many frames to look at; with `fps`, at most.
        fps: How many frames a second to look at.
        sampler: `uniform` (transformers) or `linspace` (the original, last frame included).
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values_videos"]
    type_key = "video_processor_type"
    saved_as = "LlavaNextVideoVideoProcessor"
    file_name = "video_preprocessor_config.json"
    do_sample_frames: bool | None
    num_frames: int | None
    fps: int | float | None
    sampler: str | None

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
        *,
        do_sample_frames: bool | None = None,
        num_frames: int | None = None,
        fps: int | float | None = None,
        sampler: str | None = None,
        **kwargs: object,
    ) -> None:
        self.refuse_unknown(kwargs)
        given = {key: value for key, value in locals().items() if key not in ("self", "kwargs", "__class__")}
        self._remember(**given)
        self.settings()

    @classmethod
    def section(cls, files: ProcessorFiles) -> Mapping[str, object]:
        return files.video

    def __call__(self, images: object = None, **kwargs: object) -> BatchFeature:
        """The same as `preprocess`."""
        return self.preprocess(images, **kwargs)  # type: ignore[arg-type]

    def preprocess(
        self,
        images: object = None,
        do_resize: bool | None = None,
        size: Mapping[str, int] | int | None = None,
        resample: Resampling | int | str | None = None,
        do_center_crop: bool | None = None,
        crop_size: Mapping[str, int] | int | None = None,
        do_rescale: bool | None = None,
        rescale_factor: int | float | None = None,
        do_normalize: bool | None = None,
        image_mean: int | float | Sequence[float] | None = None,
        image_std: int | float | Sequence[float] | None = None,
        do_convert_rgb: bool | None = None,
        return_tensors: object = None,
        data_format: object = "channels_first",
        input_data_format: object = None,
        *,
        videos: object = None,
        do_sample_frames: bool | None = None,
        num_frames: int | None = None,
        fps: int | float | None = None,
        sampler: str | None = None,
        video_metadata: object = None,
        return_metadata: bool = False,
    ) -> BatchFeature:
        """The pixels of one clip or a batch; every argument that is None keeps the processor's setting.

        Args:
            images: The clips (`videos` is the same under its newer name).
            return_tensors: `pt` gives one tensor of clips x frames x channels x height x width, or a list of
                tensors where clips differ in their frames; `np` the same in arrays; None a list of arrays.
            data_format: Channel order of the result; None keeps the order of the input.
            input_data_format: Channel order of arrays; None finds out.
            video_metadata: Frame rates of arrays, one mapping with `fps` a clip; `fps` needs them.
            return_metadata: Also give `video_metadata`: frame counts, rates and the indices looked at.

        Raises:
            MediaError: Something that is no clip.
            ConfigError: A setting that cannot be honoured.
        """
        given = locals()
        settings = self.settings(**{name: given[name] for name in self.names})
        if (images is None) == (videos is None):
            raise MediaError("give the clips once, as the first argument or as videos=")
        footage = self.read(
            images if videos is None else videos,
            sampling=self.sampling(
                do_sample_frames=do_sample_frames, num_frames=num_frames, fps=fps, sampler=sampler
            ),
            input_data_format=input_data_format,
            video_metadata=video_metadata,
            convert_rgb=settings.convert_rgb,
        )
        pixels = [_ordered(clip, settings, data_format) for clip in footage]
        data: dict[str, object] = {"pixel_values_videos": _batched(pixels, return_tensors)}
        if return_metadata:
            data["video_metadata"] = [clip.metadata for clip in footage]
        return BatchFeature(data)

    def read(
        self,
        videos: object,
        *,
        sampling: Sampling | None,
        input_data_format: object = None,
        video_metadata: object = None,
        convert_rgb: bool = True,
    ) -> list[Footage]:
        """The frames of the clips, files decoded, before any resize."""
        clips = list(each_clip(videos))
        known = video_metadata if isinstance(video_metadata, list | tuple) else [video_metadata] * len(clips)
        if len(known) != len(clips):
            raise MediaError(
                f"{len(clips)} clips and {len(known)} entries of video_metadata; expected one a clip"
            )
        order = read_channel_order("input_data_format", input_data_format)
        return [
            read_footage(
                clip,
                sampling=sampling,
                order=order,
                convert_rgb=convert_rgb,
                frames_per_second=rate_of(metadata),
            )
            for clip, metadata in zip(clips, known, strict=True)
        ]

    def sampling(
        self,
        *,
        do_sample_frames: bool | None = None,
        num_frames: int | None = None,
        fps: int | float | None = None,
        sampler: str | None = None,
    ) -> Sampling | None:
        """Which moments were asked for, by the call or by the processor's own settings; None if none were.

        Raises:
            ConfigError: Settings that contradict each other.
        """
        asked = num_frames is not None or fps is not None or sampler is not None
        if do_sample_frames is False and asked:
            raise ConfigError(
                "do_sample_frames=False together with num_frames, fps or sampler; drop one side"
            )
        if do_sample_frames is None:
            do_sample_frames = asked or self._samples()
        if not do_sample_frames:
            return None
        if num_frames is None and fps is None:
            num_frames, fps = self.num_frames, self.fps
        if fps is not None:
            most = UNCAPPED if num_frames is None else num_frames
            return Sampling(how="fps", per_second=fps, frames=most)
        how = read_sampler(sampler or self.sampler)
        return Sampling(how=how) if num_frames is None else Sampling(how=how, frames=num_frames)

    def _samples(self) -> bool:
        """Whether the processor's own settings ask for a sampling."""
        if self.do_sample_frames is None:
            return self.num_frames is not None or self.fps is not None
        return self.do_sample_frames

    def resize(
        self,
        image: np.ndarray,
        size: Mapping[str, int],
        resample: Resampling | int | str = Resampling.BICUBIC,
        data_format: object = None,
        input_data_format: object = None,
    ) -> np.ndarray:
        """One frame with its shortest edge at `size["shortest_edge"]` pixels, or at an exact size.

        `data_format` None keeps the channel order of the input.
        """
        order = read_channel_order("input_data_format", input_data_format) or infer_order(image.shape)
        frame = torch.from_numpy(np.ascontiguousarray(image))[None]
        frame = frame.permute(0, 3, 1, 2) if order == "channels_last" else frame
        shortest_edge, exact = read_size(size)
        rule = replace(
            self.settings(), shortest_edge=shortest_edge, exact=exact, resample=read_resample(resample)
        )
        out = resized(frame, rule.resized(Size(*frame.shape[-2:])), rule.resample)[0]
        if (read_channel_order("data_format", data_format) or order) == "channels_last":
            out = out.permute(1, 2, 0)
        return np.ascontiguousarray(out.numpy())


def read_sampler(sampler: str | None) -> Literal["uniform", "linspace"]:
    """A `sampler` by its name; evenly, from the first frame on, if there is none.

    Raises:
        ConfigError: An unknown name.
    """
    match sampler:
        case None | "uniform":
            return "uniform"
        case "linspace":
            return "linspace"
    raise ConfigError(f"sampler is {sampler!r}; expected 'uniform' or 'linspace', or give fps")


def _ordered(clip: Footage, settings: PixelSettings, data_format: object) -> Tensor:
    pixels = video_pixels(clip.frames, settings)
    order = read_channel_order("data_format", data_format) or clip.order
    return pixels.permute(0, 2, 3, 1) if order == "channels_last" else pixels


def _batched(pixels: list[Tensor], return_tensors: object) -> object:
    """One tensor where the clips have one shape, a list where they differ or no tensor was asked for."""
    kind = read_tensor_kind(return_tensors)
    alike = len({tuple(clip.shape) for clip in pixels}) == 1
    if kind == "pt":
        # One clip, the common case, is not copied.
        return (pixels[0][None] if len(pixels) == 1 else torch.stack(pixels)) if alike else pixels
    arrays = [clip.cpu().numpy() for clip in pixels]
    return np.stack(arrays) if kind == "np" and alike else arrays


LlavaNextVideoVideoProcessor = LlavaNextVideoImageProcessor
"""The name that transformers 5 gave the class."""
