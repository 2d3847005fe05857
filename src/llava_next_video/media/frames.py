"""Decoded frames become upright RGB rows of one array."""

import struct
import threading
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from llava_next_video.errors import MediaError
from llava_next_video.media.clip import Frames, empty_frames
from llava_next_video.media.limits import Limits
from llava_next_video.media.means import Room, new_room
from llava_next_video.size import Size

Pixels = UInt8[np.ndarray, "height width 3"]


def turned(pixels: Pixels, matrix: bytes | None) -> UInt8[np.ndarray, "upright_height upright_width 3"]:
    """The frame as its display matrix wants it shown: a view turned by quarters, mirrored if asked.

    Phones film lying down and write into the file how to hold the picture. `matrix` is nine int32 in the
    order a b u c d v x y w, with x' = a x + c y and y' = b x + d y; other angles are taken to the
    nearest quarter.

    >>> lying = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    >>> quarter = struct.pack("=9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    >>> bool((turned(lying, quarter) == np.rot90(lying, -1)).all())
    True

    Source: FFmpeg, `libavutil/display.h`.
    """
    if matrix is None or len(matrix) < 36:
        return pixels
    a, b, _, c, d = struct.unpack_from("=5i", matrix)
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


class Roll:
    """One preallocated array that decoded frames are written into, each once, upright and in RGB.

    The first frame sets the size; frames of another size (a stream may change it) are scaled to it. Once it
    is there, several threads may write.
    """

    def __init__(self, slots: int, name: str, limits: Limits, room: Room = new_room) -> None:
        self._slots = slots
        self._name = name
        self._limits = limits
        self._room = room
        self._own = threading.local()  # a reformatter is one thread's
        self._coded: Size | None = None
        self._matrix: bytes | None = None
        self.frames: Frames | None = None

    def write(self, slot: int, frame: av.VideoFrame) -> None:
        """Convert one decoded frame into its slot.

        Raises: MediaLimitError when the frames would be larger than the limits.
        """
        if self._coded is None:
            self._coded = Size(frame.height, frame.width)
            side = frame.side_data.get("DISPLAYMATRIX")
            self._matrix = None if side is None else bytes(cast(Buffer, side))
        upright = turned(self._rgb(frame), self._matrix)
        if self.frames is None:
            size = Size(*upright.shape[:2])
            self.frames = empty_frames(self._slots, size, self._name, self._limits, self._room)
        self.frames[slot] = upright

    def _rgb(self, frame: av.VideoFrame) -> Pixels:
        assert self._coded is not None
        height, width = self._coded
        if not hasattr(self._own, "reformatter"):
            self._own.reformatter = VideoReformatter()
        try:
            rgb = self._own.reformatter.reformat(frame, width=width, height=height, format="rgb24")
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"{self._name}: pixel format {frame.format.name} cannot be shown as RGB"
            ) from error
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
        return rows[:height, : width * 3].reshape(height, width, 3)
