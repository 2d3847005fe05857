"""Frames in the terminal, two pixels a letter."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from rich.console import Group
from rich.style import Style
from rich.text import Text

from llava_next_video.media import Clip, Picture

LETTERS = 24


def drawn(seen: Clip | Picture, width: int) -> Group:
    """The frames of a clip with their times, or a picture, in rows of at most so many letters."""
    if isinstance(seen, Clip):
        frames, labels = list(seen.frames), [f"{time_s:.2f} s" for time_s in seen.times_s]
    else:
        frames, labels = [np.asarray(seen.image)], [seen.name]
    each = max(1, width // (LETTERS + 1))
    rows: list[Text] = []
    for start in range(0, len(frames), each):
        tiles = [_tile(frame) for frame in frames[start : start + each]]
        rows += [Text(" ").join(line) for line in zip(*tiles, strict=True)]
        rows.append(Text(" ".join(f"{label[:LETTERS]:<{LETTERS}}" for label in labels[start : start + each])))
    return Group(*rows)


def _tile(frame: UInt8[np.ndarray, "height width 3"]) -> list[Text]:
    """A frame as lines of half blocks: the letter's colour above, its ground below."""
    lines = max(1, round(LETTERS * frame.shape[0] / frame.shape[1] / 2))
    rows = np.linspace(0, frame.shape[0] - 1, 2 * lines).round().astype(int)
    columns = np.linspace(0, frame.shape[1] - 1, LETTERS).round().astype(int)
    small = frame[rows][:, columns]
    text = []
    for above, below in zip(small[::2], small[1::2], strict=True):
        line = Text()
        for upper, lower in zip(above.tolist(), below.tolist(), strict=True):
            line.append("▀", Style(color=_rgb(upper), bgcolor=_rgb(lower)))
        text.append(line)
    return text


def _rgb(pixel: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pixel)
