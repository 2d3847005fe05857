"""When the frames of clips are, in the words that models were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llava_next_video.errors import PromptError
from llava_next_video.media import Clip, Picture
from llava_next_video.messages import Text, Turn


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
    """The conversation with a time instruction for each clip before the words of its turn, on its own line.

    `media` are in the order in which the turns name them.
    """
    waiting = iter(media)
    return tuple(_timed(turn, [next(waiting) for _ in turn.media]) for turn in turns)


def _timed(turn: Turn, seen: Sequence[Clip | Picture]) -> Turn:
    told = "".join(f"{time_instruction(one)}\n" for one in seen if isinstance(one, Clip))
    if not told:
        return turn
    words = [place for place, part in enumerate(turn.parts) if isinstance(part, Text)]
    first = words[0] if words else len(turn.parts)
    return replace(turn, parts=(*turn.parts[:first], Text(text=told), *turn.parts[first:]))
