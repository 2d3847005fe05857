"""What a container says of a clip that is not all there."""

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from llava_next_video.media.index import NO_TIME, PacketIndex

# A claim this close to what was found is rounding, or a last frame that nobody said how long to show.
_SLACK_S = 0.25
_SLACK_SHARE = 0.03


def unmet_claim_s(container: InputContainer, stream: VideoStream, index: PacketIndex) -> float | None:
    """How long the clip should be, in seconds from its first frame, if it breaks off clearly before that.

    Containers that write it down for each stream (mp4, mov), or in a tag for each stream or for all
    (mkv, webm), are believed; None for any other, and for a clip that is whole. A sound track that goes on
    after the pictures makes no clip incomplete.
    """
    if stream.time_base is None or int(index.pts.min()) == NO_TIME:
        return None
    tick = float(stream.time_base)
    end_s = _claimed_end_s(container, stream, tick)
    if end_s is None:
        return None
    stamps = np.sort(index.pts)
    longest_gap_s = float(np.diff(stamps).max(initial=0)) * tick
    missing_s = end_s - index.end * tick
    if missing_s <= max(_SLACK_S, _SLACK_SHARE * end_s, 2 * longest_gap_s):
        return None
    return round(end_s - float(stamps[0]) * tick, 6)


def _claimed_end_s(container: InputContainer, stream: VideoStream, tick: float) -> float | None:
    forms = container.format.name.split(",")
    if "mov" in forms:
        return None if stream.duration is None else ((stream.start_time or 0) + stream.duration) * tick
    if "matroska" in forms:
        told = seconds_of(stream.metadata.get("DURATION", ""))
        if told is not None:
            return told
        if len(container.streams) == 1 and container.duration is not None:
            return container.duration / 1e6
    return None


def seconds_of(text: str) -> float | None:
    """The seconds in a Matroska DURATION tag, or None if it is none.

    >>> seconds_of("00:01:02.400000000"), seconds_of("soon")
    (62.4, None)
    """
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
