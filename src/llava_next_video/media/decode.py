"""Decode the asked frames, and as few others as can be."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from llava_next_video.media.bitstream import Bitstream
from llava_next_video.media.frames import Roll
from llava_next_video.media.index import NO_TIME, PacketIndex, VideoPacket

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
        context = stream.codec_context
        self._bitstream = Bitstream.of(context.codec.canonical_name, context.extradata)
        self.frames_decoded = 0

    def decode(self, run: Run, roll: Roll) -> bool:
        """Write the run's frames into the roll; False if any of them did not come out whole."""
        context = self._stream.codec_context
        start_pts = int(self._index.pts[run.start])
        # A frame has the time stamp of its packet, and in an index with display order those are unique.
        slots = {int(self._index.pts[number]): slot for number, slot in run.slots.items()}
        owed: set[int] = set()
        self._go_to(run.start)
        for number in range(run.start, run.stop + 1):
            packet = self._take(number)
            if packet is None or packet.pts is None:
                return False
            if number not in run.slots and self._bitstream and self._bitstream.is_leaf(bytes(packet)):
                continue
            # Frames shown before the run's key frame may lean on packets that were not decoded. They are
            # in nobody's way: a run in which one of them is wanted starts earlier.
            leads = packet.pts < start_pts
            if not leads and not self._index.hidden[number]:
                owed.add(packet.pts)
            try:
                frames = context.decode(packet)
                if number == run.stop:
                    frames = [*frames, *context.decode(None)]
            except av.FFmpegError:
                if not leads:
                    return False
                continue
            for frame in frames:
                self.frames_decoded += 1
                if frame.pts is None or (frame.is_corrupt and frame.pts >= start_pts):
                    return False
                owed.discard(frame.pts)
                if frame.pts in slots:
                    roll.write(slots[frame.pts], frame)
        context.flush_buffers()
        return not owed

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


def whole_frames(
    container: InputContainer, stream: VideoStream, index: PacketIndex
) -> Iterator[av.VideoFrame]:
    """Every frame of a straight decode that comes out whole, in display order.

    A damaged packet takes the rest of its group with it: those frames lean on it and would be shown grey
    or smeared. Frames are handed out a little late, because what marks the damage may be shown after
    frames that lean on it.
    """
    context = stream.codec_context
    damage = _Damage()
    # A frame carries its packet's time stamp, even one that the demuxer made up.
    number_by_pts = dict(zip(index.pts.tolist(), range(len(index.pts)), strict=True))
    if len(number_by_pts) < len(index.pts):
        number_by_pts = {}
    # A decoder may drop a frame without a word; where the order is known, the gap is seen.
    due = (
        deque()
        if index.shown is None
        else deque(zip(index.pts[index.shown].tolist(), index.shown.tolist(), strict=True))
    )
    waiting: deque[tuple[int, av.VideoFrame]] = deque()
    for number, packet in enumerate(_packets_and_end(container, stream)):
        if packet is not None and packet.is_corrupt:
            damage.note(number)
            continue
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            damage.note(number)
            frames = []
        for frame in frames:
            shown = number_by_pts.get(NO_TIME if frame.pts is None else frame.pts, number)
            if frame.is_corrupt:
                damage.note(shown)
            while due and frame.pts is not None and due[0][0] <= frame.pts:
                pts, at = due.popleft()
                if pts != frame.pts:
                    damage.note(at)
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
