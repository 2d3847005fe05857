"""A video file as a clip: open, count, choose, decode."""

import io
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media.claim import unmet_claim_s
from llava_next_video.media.clip import Clip, clip_of
from llava_next_video.media.clock import Clock, clock_of, steady_clock
from llava_next_video.media.decode import PlannedDecoder, Run, plan, whole_frames
from llava_next_video.media.frames import Roll
from llava_next_video.media.index import NO_TIME, PacketIndex, index_packets
from llava_next_video.media.limits import Limits
from llava_next_video.media.means import Means
from llava_next_video.media.sampling import Sampling, moved_to_keys
from llava_next_video.media.source import Opened
from llava_next_video.media.view import second_view

# Demuxers that read one file and nothing else. FFmpeg also has playlists and scripts (hls, dash, concat)
# that open other files and addresses, whatever the file is called. The audio ones are here so that a
# sound file can be named as such.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,mxf,ivf,h264,hevc,m4v,mpegvideo,obu,"
    "yuv4mpegpipe,mp3,wav,flac,aac"
)
_EXPECTED = "expected a clip such as mp4, mov, mkv, webm, avi, ts, mpg, flv, wmv or ogv"
# Packets to decode below which a second thread, which opens the file again, costs more than it saves.
_WORTH_A_THREAD = 120
# The first pass counts; the second reads, if the count was not the expected one.
_MOST_PASSES = 2
# Streams that are told not to be probed; those behind them are.
_MOST_STREAMS = 8
# What a stream without any rate is taken to run at, as FFmpeg takes it for bare H.264.
_DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What it took to read a clip, in counts, which say more than times."""

    packets: int
    frames_decoded: int
    straight: bool


def read_video(
    source: Opened,
    sampling: Sampling,
    limits: Limits,
    means: Means = Means(),  # noqa: B008 - frozen
) -> tuple[Clip, Work]:
    """The sampled frames of a video file, equal to those of a straight decode.

    The packets are counted first, without decoding; then only the groups with wanted frames are decoded.
    Where packets do not tell the frames (see `index`), or a wanted frame does not come out whole, the
    clip is decoded from end to end and counted: damaged frames are then no part of it.
    """
    clip, decoded = None, 0
    with _opened_stream(source, limits, probe=False) as (container, stream):
        index = index_packets(container, stream, source.name, limits)
        claimed_s = unmet_claim_s(container, stream, index)
        probe = index.reordered and not stream.codec_context.has_b_frames
        if not probe:
            clip, decoded = _read_planned(container, stream, index, source, sampling, limits, means)
    if probe:
        with _opened_stream(source, limits) as (container, stream):
            clip, decoded = _read_planned(container, stream, index, source, sampling, limits, means)
    straight = clip is None
    if clip is None:
        clip, more = _read_straight(index, source, sampling, limits, means)
        decoded += more
    work = Work(packets=len(index.pts), frames_decoded=decoded, straight=straight)
    return replace(clip, claimed_s=claimed_s), work


def _read_planned(
    container: InputContainer,
    stream: VideoStream,
    index: PacketIndex,
    source: Opened,
    sampling: Sampling,
    limits: Limits,
    means: Means,
) -> tuple[Clip | None, int]:
    if index.shown is None or index.damaged:
        return None, 0
    clock = clock_of(index.pts[index.shown], _time_base(stream), index.last_duration, stream.average_rate)
    clock.check(source.name, limits)
    indices = clock.choose(sampling)
    if sampling.near_keys:
        indices = moved_to_keys(indices, np.flatnonzero(index.key[index.shown]).tolist())
    roll = Roll(len(indices), source.name, limits, means.room)
    runs = plan(index, index.shown[indices].tolist())
    shared = _half(runs) if means.threads == 2 else 0
    whole, decoded = _decode_runs(container, stream, index, runs, roll, source, limits, shared)
    return _filled(roll, clock, indices, source, sampling) if whole else None, decoded


def _decode_runs(
    container: InputContainer,
    stream: VideoStream,
    index: PacketIndex,
    runs: list[Run],
    roll: Roll,
    source: Opened,
    limits: Limits,
    half: int,
) -> tuple[bool, int]:
    """Write the frames of all runs into the roll; and how many were decoded.

    Runs start at key frames, so they know nothing of each other: a second thread takes those from `half` on,
    if it is not 0. The first run is decoded before that: its first frame sets the size of the roll.
    """
    decoder = PlannedDecoder(container, stream, index)

    def here(mine: list[Run]) -> bool:
        return all(decoder.decode(run, roll) for run in mine)

    def beside(file: io.BufferedIOBase, others: list[Run]) -> tuple[bool, int]:
        view = replace(source, file=file)
        with _opened_stream(view, limits, probe=False) as (its_container, its_stream):
            helper = PlannedDecoder(its_container, its_stream, index)
            return all(helper.decode(run, roll) for run in others), helper.frames_decoded

    view = second_view(source.file) if half else None
    if view is None:
        return here(runs), decoder.frames_decoded
    if not here(runs[:1]):
        return False, decoder.frames_decoded
    with view, ThreadPoolExecutor(1, thread_name_prefix="decoder") as threads:
        second = threads.submit(beside, view, runs[half:])
        whole = here(runs[1:half])
        others_whole, others_decoded = second.result()
    return whole and others_whole, decoder.frames_decoded + others_decoded


def _half(runs: list[Run]) -> int:
    """The run from which a second thread should take over; 0 if all are too short to share."""
    packets = list(accumulate(run.stop - run.start + 1 for run in runs))
    if len(runs) < 3 or packets[-1] < _WORTH_A_THREAD:
        return 0
    return min(max(2, bisect_left(packets, packets[-1] / 2) + 1), len(runs) - 1)


def _read_straight(
    index: PacketIndex, source: Opened, sampling: Sampling, limits: Limits, means: Means
) -> tuple[Clip, int]:
    """Decode everything and count; once if as many frames come out as packets went in, else twice."""
    expected: list[int] | None = None
    decoded = 0
    for _ in range(_MOST_PASSES):
        with _opened_stream(source, limits) as (container, stream):
            rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
            if expected is None:
                expected = _clock_by(np.sort(index.pts), stream, index, rate).choose(sampling)
            slots = {moment: slot for slot, moment in enumerate(expected)}
            roll = Roll(len(expected), source.name, limits, means.room)
            stamps: list[int] = []
            for frame in whole_frames(container, stream, index):
                if len(stamps) >= limits.frames:
                    raise MediaLimitError(
                        f"{source.name}: more than {limits.frames} frames, which is the limit"
                    )
                if len(stamps) in slots:
                    roll.write(slots[len(stamps)], frame)
                stamps.append(NO_TIME if frame.pts is None else frame.pts)
            decoded += len(stamps)
            if not stamps:
                raise MediaError(
                    f"{source.name}: none of its {len(index.pts)} packets ({stream.codec_context.name}) "
                    "gives a whole frame; the file is damaged"
                )
            clock = _clock_by(np.array(stamps, dtype=np.int64), stream, index, rate)
            clock.check(source.name, limits)
            indices = clock.choose(sampling)
        if indices == expected:
            return _filled(roll, clock, indices, source, sampling), decoded
        expected = indices
    raise MediaError(f"{source.name}: it does not decode the same way twice; the file is damaged or changing")


def _clock_by(stamps: np.ndarray, stream: VideoStream, index: PacketIndex, rate: Fraction) -> Clock:
    # AVI has no time stamps: what the demuxer makes up for frames out of order goes back and forth.
    if stamps.min() == NO_TIME or np.any(np.diff(stamps) <= 0):
        return steady_clock(len(stamps), float(rate))
    return clock_of(stamps, _time_base(stream), index.last_duration, rate)


def _filled(roll: Roll, clock: Clock, indices: list[int], source: Opened, sampling: Sampling) -> Clip:
    assert roll.frames is not None
    return clip_of(roll.frames, clock, indices, sampling, source.key, source.name)


def _time_base(stream: VideoStream) -> Fraction:
    assert stream.time_base is not None
    return stream.time_base


@contextmanager
def _opened_stream(
    source: Opened, limits: Limits, *, probe: bool = True
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its moving-picture stream, ready for one thread; closed at the end.

    Without a `probe`, FFmpeg takes from the header of an mp4 what it would learn from the first frames.

    Raises: MediaError if it is no video file, with what was found; MediaLimitError by frame size.
    """
    container = None if probe or not _is_mp4(source) else _by_header(source)
    try:
        container = container or _container(source)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"{source.name}: {_why_unreadable(source, error)}; {_EXPECTED}") from error
    with container:
        stream = _moving_pictures(container, source.name)
        context = stream.codec_context
        if context.width * context.height > limits.pixels:
            raise MediaLimitError(
                f"{source.name}: frames of {context.width}x{context.height} pixels, and the limit is "
                f"{limits.pixels} pixels"
            )
        # The decoder itself refuses larger frames, also when a stream grows half way through.
        context.options = {"max_pixels": str(limits.pixels)}
        context.thread_type = "NONE"
        context.thread_count = 1
        yield container, stream


def _container(source: Opened, of_streams: list[dict[str, str]] | None = None) -> InputContainer:
    source.file.seek(0)
    return av.open(
        source.file,
        "r",
        # Not as `options`: before PyAV 18 those go astray in formats that show their streams late.
        container_options={"format_whitelist": _FORMATS},
        stream_options=cast("list[str] | None", of_streams),  # a slip in PyAV's stubs
        metadata_errors="replace",
    )


def _by_header(source: Opened) -> InputContainer | None:
    """The container, without the frames that FFmpeg decodes to see what is in it; None if it needs them."""
    try:
        return _container(source, [{"skip_frame": "all"}] * _MOST_STREAMS)
    except (av.FFmpegError, ValueError):
        return None


def _is_mp4(source: Opened) -> bool:
    source.file.seek(0)
    return source.file.read(8)[4:] == b"ftyp"


def _moving_pictures(container: InputContainer, name: str) -> VideoStream:
    for stream in container.streams.video:
        if not _is_cover(stream) and stream.codec_context is not None:
            return stream
    found = [
        f"{'cover picture' if _is_cover(stream) else stream.type} ({_codec(stream)})"
        for stream in container.streams
    ]
    raise MediaError(f"{name}: no video stream; found {', '.join(found) or 'no streams'}")


def _is_cover(stream: av.stream.Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _codec(stream: av.stream.Stream) -> str:
    return "no decoder" if stream.codec_context is None else stream.codec_context.name


def _why_unreadable(source: Opened, error: Exception) -> str:
    if _is_mp4(source):
        return "an mp4 without a readable index (moov), so it is incomplete or damaged"
    reason = getattr(error, "strerror", None) or str(error)
    return f"not a video file ({reason[:1].lower()}{reason[1:]})"


def check_video(source: Opened, limits: Limits) -> None:
    """Raises: MediaError if the source has no video stream, before anything of it is decoded."""
    with _opened_stream(source, limits):
        pass
