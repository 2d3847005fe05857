"""Decode the asked frames of a stream, and as few others as can be."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from llava_next_video.media.frames import Roll
from llava_next_video.media.index import NO_TIME, PacketIndex

if TYPE_CHECKING:
    VideoPacket = av.Packet[VideoStream]
else:  # generic in PyAV's stubs only
    VideoPacket = av.Packet

# Codecs whose decoder leaves out exactly the frames that no other frame leans on, when told so.
_SKIPS_EXACTLY = {"h264", "hevc", "mpeg4"}
# A seek costs about as much as reading over this many packets.
_SEEK_PACKETS = 48
# No codec holds back more frames than this while it brings them into display order.
_MAX_REORDER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Packets to decode in one go, from a key packet to the last wanted one; `slots` go by packet."""

    start: int
    stop: int
    slots: dict[int, int]


def plan(index: PacketIndex, packets: Sequence[int]) -> list[Run]:
    """The shortest runs that bring out the frames of these packets; a slot is a place in that list."""
    runs: list[Run] = []
    for start, packet, slot in sorted(
        (index.start_of(packet), packet, slot) for slot, packet in enumerate(packets)
    ):
        stop, slots = packet, {packet: slot}
        if runs and start <= runs[-1].stop:
            last = runs.pop()
            start, stop, slots = last.start, max(last.stop, stop), last.slots | slots
        runs.append(Run(start=start, stop=stop, slots=slots))
    return runs


class PlannedDecoder:
    """Goes through a stream from run to run and drains the decoder after each.

    Draining brings out the last wanted frame without the later packets that reordering waits for.
    `frames_decoded` counts all frames that came out, wanted or not.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, index: PacketIndex) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        self._packets: Iterator[tuple[int, VideoPacket]] = iter(())
        self._next_number = len(index.pts)
        self._may_skip = stream.codec_context.codec.canonical_name in _SKIPS_EXACTLY
        self.frames_decoded = 0
        stream.codec_context.copy_opaque = True

    def decode(self, run: Run, roll: Roll) -> bool:
        """Write the run's frames into the roll; False if any of them did not come out whole."""
        context = self._stream.codec_context
        written = 0
        self._go_to(run.start)
        for number in range(run.start, run.stop + 1):
            packet = self._take(number)
            if packet is None:
                return False
            packet.opaque = number
            if self._may_skip:
                context.skip_frame = "DEFAULT" if number in run.slots else "NONREF"
            try:
                frames = context.decode(packet)
                if number == run.stop:
                    frames = [*frames, *context.decode(None)]
            except av.FFmpegError:
                if self._leads(number, run):
                    continue
                return False
            for frame in frames:
                self.frames_decoded += 1
                shown = frame.opaque
                if not isinstance(shown, int) or (frame.is_corrupt and not self._leads(shown, run)):
                    return False
                if shown in run.slots:
                    roll.write(run.slots[shown], frame)
                    written += 1
        context.flush_buffers()
        return written == len(run.slots)

    def _leads(self, number: int, run: Run) -> bool:
        """Shown before the run's key frame: it may lean on what was not decoded, and nobody wants it."""
        return bool(self._index.pts[number] < self._index.pts[run.start])

    def _go_to(self, number: int) -> None:
        """Let reading go on before this packet: where we are if it is near, else after a seek."""
        if 0 <= number - self._next_number < _SEEK_PACKETS:
            return
        stamps = (int(self._index.dts[number]), int(self._index.pts[number]))
        self._container.seek(min(time for time in stamps if time != NO_TIME), stream=self._stream)
        self._packets = self._numbered()

    def _numbered(self) -> Iterator[tuple[int, VideoPacket]]:
        """The packets from here on with their numbers; it ends where they differ from the index."""
        number = -1
        for packet in self._container.demux(self._stream):
            if packet.size == 0:
                continue
            found = [number + 1] if number >= 0 else np.flatnonzero(self._index.pts == packet.pts)
            if not len(found) or found[0] >= len(self._index.pts):
                return
            number = int(found[0])
            if packet.pts != self._index.pts[number]:
                return
            yield number, packet

    def _take(self, number: int) -> VideoPacket | None:
        try:
            for at, packet in self._packets:
                self._next_number = at + 1
                if at >= number:
                    return packet if at == number else None
        except av.FFmpegError:
            return None
        return None


def whole_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Every frame of a straight decode that comes out whole, in display order.

    A damaged packet takes the rest of its group with it: those frames lean on it and would be shown grey
    or smeared. Frames are handed out a little late, because what marks the damage may be shown after
    frames that lean on it.
    """
    context = stream.codec_context
    context.copy_opaque = True
    damage = _Damage()
    waiting: deque[tuple[int, av.VideoFrame]] = deque()
    for number, packet in enumerate(_packets_and_end(container, stream)):
        if packet is not None and packet.is_corrupt:
            damage.note(number)
            continue
        if packet is not None:
            packet.opaque = number
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            damage.note(number)
            frames = []
        for frame in frames:
            shown = frame.opaque if isinstance(frame.opaque, int) else number
            if frame.is_corrupt:
                damage.note(shown)
            waiting.append((shown, frame))
        while len(waiting) > (_MAX_REORDER if packet is not None else 0):
            shown, frame = waiting.popleft()
            if damage.spares(shown, key=bool(frame.key_frame)):
                yield frame


def _packets_and_end(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket | None]:
    """The packets as far as they can be read, then None, which drains the decoder."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # an empty packet would end the decoding
                yield packet
    except av.FFmpegError:
        pass
    yield None


class _Damage:
    """Which packets did not decode, and which frames lean on them."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._whole_since = -1

    def note(self, number: int) -> None:
        insort(self._numbers, number)

    def spares(self, number: int, *, key: bool) -> bool:
        """Whether this frame is whole; asked in display order, so key frames mend what follows them."""
        earlier = bisect_right(self._numbers, number)
        last = self._numbers[earlier - 1] if earlier else -1
        if key and number > last:
            self._whole_since = number
        return last < 0 or self._whole_since > last
