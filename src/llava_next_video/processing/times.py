"""When the frames of clips are, in the words that models were trained on."""

from __future__ import annotations

from collections.abc import Sequence

from llava_next_video.errors import PromptError
from llava_next_video.media import Clip, Picture
from llava_next_video.messages import Part, Text, Turn, Video


def time_instruction(clip: Clip) -> str:
    """How long a clip is, and where in it its frames stand.

    Raises:
        PromptError: The clip has no clock: frames that came without a rate.

    Source: LLaVA-NeXT, `playground/demo/video_demo.py`, `add_time_instruction`; the missing space after the
    times is the original's, and models were trained on it.
    """
    if clip.duration_s is None:
        raise PromptError(f"{clip.name}: its frames have no times to tell; leave time_instruction out")
    times = ",".join(f"{time_s:.2f}s" for time_s in clip.times_s)
    return (
        f"The video lasts for {clip.duration_s:.2f} seconds, and {len(clip.frames)} frames are uniformly "
        f"sampled from it. These frames are located at {times}.Please answer the following questions "
        "related to this video."
    )


def with_times(turns: Sequence[Turn], media: Sequence[Clip | Picture]) -> tuple[Turn, ...]:
    """The conversation with a time instruction behind each clip, on a line of its own.

    `media` are in the order in which the turns name them.
    """
    waiting = iter(media)
    told = []
    for turn in turns:
        parts: list[Part] = []
        for part in turn.parts:
            before = parts[-1] if parts else None
            if isinstance(part, Text) and isinstance(before, Text):
                parts[-1] = Text(text=before.text + part.text)
                continue
            parts.append(part)
            seen = None if isinstance(part, Text) else next(waiting)
            if isinstance(part, Video) and isinstance(seen, Clip):
                parts.append(Text(text=f"{time_instruction(seen)}\n"))
        told.append(Turn(role=turn.role, parts=tuple(parts)))
    return tuple(told)
