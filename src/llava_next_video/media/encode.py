"""Film arrays: frames to a video file."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, cast, get_args

import av
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import UInt8

from llava_next_video.errors import ConfigError, MediaError
from llava_next_video.size import Size

Codec = Literal["h264", "vp9", "mpeg4"]
Frame = UInt8[np.ndarray, "height width 3"]

_ENCODERS = {"h264": "libx264", "vp9": "libvpx-vp9", "mpeg4": "mpeg4"}
_CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
}
# The clock of clips with their own time stamps, as MPEG's.
_TICKS_PER_SECOND = 90_000


def write_clip(
    path: str | os.PathLike[str],
    frames: Iterable[Frame],
    frames_per_second: float | int,
    *,
    codec: Codec = "h264",
    crf: int = 23,
    gop: int | None = None,
    pix_fmt: str | None = None,
    times_s: Sequence[float | int] | None = None,
    rotation: Literal[0, 90, 180, 270] = 0,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write RGB frames to a video file and return its path; the same frames give the same bytes.

    `frames` may be an array or any iterator; they are encoded as they come. The container goes by the
    suffix. `crf` is the quality (0 best, 51 worst), `gop` the most frames from key frame to key frame,
    `times_s` each frame's time if the rate varies, `rotation` the clockwise quarter turns, in degrees,
    that a player is told to show it with, and `options` what else the encoder understands. Without
    `pix_fmt`, frames are stored as yuv420p, and as yuv444p where H.264 cannot halve an odd side.
    The file appears only when it is complete.

    Raises: ConfigError for settings that do not go together; MediaError if there are no frames, they
    differ in size, or the file cannot be written.
    """
    path = Path(path)
    container_format = _CONTAINERS.get(path.suffix.lower())
    if container_format is None:
        raise ConfigError(f"{path}: expected a name that ends in {', '.join(_CONTAINERS)}")
    if codec not in get_args(Codec):
        raise ConfigError(f"codec={codec!r} was given; expected one of {', '.join(get_args(Codec))}")
    if not 0 < frames_per_second < float("inf"):
        raise ConfigError(f"frames_per_second={frames_per_second} was given; expected a number above 0")
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise MediaError(f"{path}: no frames to write")
    size = Size(*first.shape[:2])
    if pix_fmt is None:
        odd = size.height % 2 or size.width % 2
        pix_fmt = "yuv444p" if codec == "h264" and odd else "yuv420p"
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        # Matroska would get a random name, and every container the version of its writer.
        muxing = {"fflags": "+bitexact"}
        with av.open(os.fspath(partial), "w", format=container_format, options=muxing) as container:
            rate = Fraction(frames_per_second).limit_denominator(1001)
            stream = cast(VideoStream, container.add_stream(_ENCODERS[codec], rate=rate))
            stream.height, stream.width, stream.pix_fmt = size.height, size.width, pix_fmt
            stream.codec_context.options = _encoder_options(codec, crf, options or {})
            # With more threads the encoder's choices depend on how many.
            stream.codec_context.thread_count = 1
            if gop is not None:
                stream.codec_context.gop_size = gop
            if times_s is not None:
                stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
            if rotation:
                _turn(stream, rotation)
            for frame in _video_frames(path, chain([first], pictures), size, times_s, rate):
                container.mux(stream.encode(frame))
                # What the encoder did not take when it opened, it does not know.
                if stream.codec_context.options:
                    unknown = ", ".join(stream.codec_context.options)
                    raise ConfigError(f"{path}: the {codec} encoder knows no option {unknown}")
            container.mux(stream.encode(None))
        os.replace(partial, path)
    except ValueError as error:  # PyAV's for settings; some of FFmpeg's errors are of this kind too
        raise ConfigError(
            f"{path}: {codec} with pix_fmt={pix_fmt!r} in {container_format} cannot be written ({error})"
        ) from error
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be written as {codec} in {container_format} ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _encoder_options(codec: Codec, crf: int, wanted: Mapping[str, str]) -> dict[str, str]:
    if not 0 <= crf <= 51:
        raise ConfigError(f"crf={crf} was given; expected 0 (best) to 51 (worst)")
    if codec == "h264":
        # What x264's fastest arithmetic gives differs between machines, and from run to run as well.
        params = ":".join(filter(None, ("cpu-independent=1", wanted.get("x264-params"))))
        return {"crf": str(crf), **wanted, "x264-params": params}
    if codec == "vp9":
        return {"crf": str(crf), "b": "0", "deadline": "realtime", "cpu-used": "8", **wanted}
    # MPEG-4 has a quantiser from 1 to 31 instead; FFmpeg counts it in units of 118.
    quantiser = max(1, round(crf * 31 / 51))
    return {"flags": "+qscale", "global_quality": str(118 * quantiser), **wanted}


def _turn(stream: VideoStream, rotation: int) -> None:
    if not hasattr(stream, "set_display_rotation"):
        raise ConfigError(f"rotation={rotation} needs PyAV 18 or newer; {av.__version__} is installed")
    stream.set_display_rotation(-rotation)


def _video_frames(
    path: Path, pictures: Iterable[Frame], size: Size, times_s: Sequence[float | int] | None, rate: Fraction
) -> Iterator[av.VideoFrame]:
    written = 0
    for number, picture in enumerate(pictures):
        if picture.shape[:2] != size:
            raise MediaError(
                f"{path}: frame {number} is {picture.shape[1]}x{picture.shape[0]} and the first is "
                f"{size.width}x{size.height}; expected one size"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if times_s is None:
            frame.pts, frame.time_base = number, 1 / rate
        elif number >= len(times_s):
            raise ConfigError(f"{path}: {len(times_s)} times were given for more frames than that")
        else:
            frame.pts = round(times_s[number] * _TICKS_PER_SECOND)
            frame.time_base = Fraction(1, _TICKS_PER_SECOND)
        written = number + 1
        yield frame
    if times_s is not None and written != len(times_s):
        raise ConfigError(f"{path}: {len(times_s)} times were given for {written} frames")
