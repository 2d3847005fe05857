"""What reading a clip may use; none of it changes a pixel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

Room = Callable[[tuple[int, int, int, int]], UInt8[np.ndarray, "frames height width 3"]]
"""Makes the array of a shape that frames are written into; what stands in it does not matter."""


def new_room(shape: tuple[int, int, int, int]) -> UInt8[np.ndarray, "frames height width 3"]:
    """Memory of this process.

    >>> new_room((2, 4, 6, 3)).shape
    (2, 4, 6, 3)
    """
    return np.empty(shape, dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How a video file is read.

    Attributes:
        threads: With 2, a long plan is shared with a second thread, which is sooner done; it opens the file
            again, so whoever reads several clips side by side takes 1.
        room: Where the frames go.
    """

    threads: Literal[1, 2] = 2
    room: Room = new_room
