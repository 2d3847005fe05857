"""Where each frame of a clip stands among its packets."""

from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media.bitstream import Bitstream
from llava_next_video.media.limits import Limits

if TYPE_CHECKING:
    VideoPacket = av.Packet[VideoStream]
else:  # generic in PyAV's stubs only
    VideoPacket = av.Packet

# In these containers every packet has its own time stamp, and with these codecs every packet is exactly
# one shown frame. Elsewhere (AVI with B-frames, field pairs in a transport stream, hidden VP8 frames)
# only decoding tells how many frames there are.
_ONE_FRAME_A_PACKET = {"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "prores", "ffv1", "dnxhd", "rawvideo"}
_STAMPED = {"mov", "matroska", "webm"}
# An MPEG-4 packet this small may be a placeholder that shows nothing.
# Source: FFmpeg, `libavcodec/mpeg4videodec.h`, `MAX_NVOP_SIZE`.
_MAX_PLACEHOLDER_BYTES = 19
NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PacketIndex:
    """The packets of a video stream in decoding order, and the order in which their frames are shown.

    `key` marks the packets that decoding can start from, `hidden` those whose frames an edit list cuts
    away. `shown[i]` is the packet of the i-th frame that a straight decode gives; it is None where time
    stamps cannot say so, and then the frames must be counted by decoding them. `end` is when the packet
    that is shown last is over.
    """

    pts: Int64[np.ndarray, " packets"]
    dts: Int64[np.ndarray, " packets"]
    key: Bool[np.ndarray, " packets"]
    hidden: Bool[np.ndarray, " packets"]
    shown: Int64[np.ndarray, " frames"] | None
    last_duration: int
    end: int
    damaged: bool

    @property
    def reordered(self) -> bool:
        """Whether frames are shown in another order than their packets come in."""
        return bool(np.any(np.diff(self.pts) < 0))

    def start_of(self, packet: int) -> int:
        """The key packet to decode from, so that this packet's frame comes out whole.

        A frame shown before a key frame may lean on the group before it, even if it is stored after.
        """
        keys = np.flatnonzero(self.key[: packet + 1] & (self.pts[: packet + 1] <= self.pts[packet]))
        return int(keys[-1])


def index_packets(container: InputContainer, stream: VideoStream, name: str, limits: Limits) -> PacketIndex:
    """Read every packet of the stream once, without decoding any.

    Raises: MediaLimitError beyond the limits on frames; MediaError if there is no packet at all.
    """
    bitstream = Bitstream.of(stream.codec_context.codec.canonical_name, stream.codec_context.extradata)
    pts, dts = array("q"), array("q")
    key, hidden, damaged = bytearray(), bytearray(), False
    smallest, last_duration, end = 1 << 60, 0, 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the end of the stream
                continue
            if len(pts) >= limits.frames:
                raise MediaLimitError(f"{name}: more than {limits.frames} frames, which is the limit")
            pts.append(NO_TIME if packet.pts is None else packet.pts)
            dts.append(NO_TIME if packet.dts is None else packet.dts)
            key.append(packet.is_keyframe and (bitstream is None or bitstream.starts_clean(bytes(packet))))
            hidden.append(packet.is_discard)
            damaged |= packet.is_corrupt
            smallest = min(smallest, packet.size)
            last_duration = packet.duration or last_duration
            end = max(end, pts[-1] + (packet.duration or 0))
    except av.FFmpegError:
        damaged = True  # what was read before the damage may still decode
    if not pts:
        raise MediaError(f"{name}: the video stream has no frames")
    packets = PacketIndex(
        pts=np.frombuffer(pts, dtype=np.int64),
        dts=np.frombuffer(dts, dtype=np.int64),
        key=np.frombuffer(key, dtype=np.bool_),
        hidden=np.frombuffer(hidden, dtype=np.bool_),
        shown=None,
        last_duration=last_duration,
        end=end,
        damaged=damaged,
    )
    codec = stream.codec_context.codec.canonical_name
    told = (
        _STAMPED & set(container.format.name.split(","))
        and codec in _ONE_FRAME_A_PACKET
        and not (codec == "mpeg4" and smallest <= _MAX_PLACEHOLDER_BYTES)
    )
    return _ordered(packets) if told else packets


def _ordered(packets: PacketIndex) -> PacketIndex:
    """The index with its display order, if the time stamps are whole and start with a key frame."""
    pts = packets.pts
    order = np.argsort(pts, kind="stable")
    whole = pts[order[0]] != NO_TIME and not np.any(np.diff(pts[order]) == 0)
    shown = order[~packets.hidden[order]]
    # Frames shown before the first key frame lean on a group that was cut off.
    if not whole or not packets.key[0] or not len(shown) or pts[shown[0]] < pts[0]:
        return packets
    return replace(packets, shown=shown)
