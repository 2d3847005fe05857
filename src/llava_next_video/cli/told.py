"""An answer as a record, and what a reader of it should know."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava_next_video.assistant import Answer


def notes(answer: Answer) -> list[str]:
    """What a reader of the answer should know about the media: clips cut off, or short of frames."""
    from llava_next_video.media import Clip

    clips = [seen for seen in answer.seen if isinstance(seen, Clip)]
    short = [
        f"{clip.name} has {clip.frame_count} frames, all looked at; {clip.sampling.frames} were wanted"
        for clip in clips
        if clip.sampling.how != "fps" and len(clip.frames) == clip.frame_count < clip.sampling.frames
    ]
    return short + [
        f"{clip.name} breaks off after {clip.duration_s or 0:.1f} s of the {clip.claimed_s:.1f} s that its "
        "container promises; the answer is about what is there"
        for clip in clips
        if clip.claimed_s is not None
    ]


def in_flags(sentence: str) -> str:
    """An error of the package with the setting that only `ask` has, under the name of its flag.

    >>> in_flags("needs more than max_visual_tokens=3")
    'needs more than --max-visual-tokens=3'
    """
    return sentence.replace("max_visual_tokens", "--max-visual-tokens")


def as_record(answer: Answer, question: str) -> dict[str, object]:
    """An answer as one JSON object."""
    from llava_next_video.media import Clip

    return {
        "question": question,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": dataclasses.asdict(answer.usage),
        "media": [
            {
                "name": seen.name,
                "kind": "video",
                "sampling": dataclasses.asdict(seen.sampling),
                "frame_times_s": [round(time_s, 3) for time_s in seen.times_s],
                "frame_count": seen.frame_count,
                "duration_s": seen.duration_s,
                "claimed_s": seen.claimed_s,
                "size": seen.size._asdict(),
            }
            if isinstance(seen, Clip)
            else {"name": seen.name, "kind": "image", "size": seen.size._asdict()}
            for seen in answer.seen
        ],
    }
