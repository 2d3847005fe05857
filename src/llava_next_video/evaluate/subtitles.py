"""The lines that are spoken while the frames are seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llava_next_video.errors import DataError
from llava_next_video.media import Clip, Sampling
from llava_next_video.media.sampling import moments

NONE = "No subtitles available"
"""What is said of a video without any. Source: lmms-eval, `tasks/videomme/utils.py`."""


class Line(NamedTuple):
    """Words, and the seconds from and until which they stand."""

    start_s: float
    end_s: float
    words: str


def subtitle_file(folder: Path, video: str) -> Path:
    """Where the subtitles of a video are, if it has any.

    >>> subtitle_file(Path("srt"), "data/7sCt.mp4").as_posix()
    'srt/7sCt.srt'
    """
    return folder / f"{Path(video).stem}.srt"


def read_subtitles(path: Path) -> tuple[Line, ...]:
    """The lines of an SRT file, their markup taken away.

    Raises:
        DataError: A block without times, or no text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; give an SRT file in UTF-8") from error
    lines = []
    for block in re.split(r"\n\s*\n", text):
        rows = block.strip().split("\n")
        if len(rows) < 3:
            continue
        times = re.findall(r"(\d+):(\d+):(\d+)[,.](\d+)", rows[1])
        if len(times) != 2:
            raise DataError(f"{path}: {rows[1]!r}; expected 00:00:01,000 --> 00:00:02,500 above the words")
        start_s, end_s = (int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in times)
        words = re.sub(r"<[^>]+>", "", " ".join(rows[2:])).strip()
        if words:
            lines.append(Line(start_s, end_s, words))
    return tuple(lines)


def spoken(lines: Sequence[Line], clip: Clip, frames: int | None) -> str:
    """The words at the frames of a clip that are seen, or at so many evenly spread ones; a line each, once.

    A clip without a rate has no frame numbers: its words are those at the frames that are seen.

    Source: Video-MME, README (the lines of the sampled frames); lmms-eval, `tasks/videomme/utils.py`,
    `videomme_doc_to_text_subtitle` (frame numbers, from the first to the last).
    """
    rate = clip.frames_per_second
    if frames is None or rate is None:
        said = [line for line in lines if any(line.start_s <= at < line.end_s for at in clip.times_s)]
    else:
        numbers = moments(clip.frame_count, Sampling(how="linspace", frames=frames), None)
        said = [
            line
            for line in lines
            if any(int(line.start_s * rate) <= number < int(line.end_s * rate) for number in numbers)
        ]
    return "\n".join(line.words for line in said)
