"""How many frames fit a budget of visual tokens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from llava_next_video.long_video import ClipLayout
from llava_next_video.media import Clip
from llava_next_video.processing.processor import LlavaNextVideoProcessor
from llava_next_video.size import Size


def most_frames(
    clips: Sequence[Clip],
    budget: int,
    processor: LlavaNextVideoProcessor,
    layout: ClipLayout | None = None,
) -> int:
    """The most frames that each of these clips can show within so many visual tokens in all.

    A clip that has fewer frames leaves its share to the others. 0: not one frame a clip fits. `layout` is how
    clips become tokens, where that is not as the checkpoint does.
    """

    def needed(frames: int) -> int:
        return sum(
            processor.counting.clip(min(frames, clip.frame_count), seen, layout)
            for clip, seen in zip(clips, sizes, strict=True)
        )

    settings = processor.video_processor.settings()
    sizes = [settings.seen(Size(*clip.frames.shape[1:3])) for clip in clips]
    longest = max((clip.frame_count for clip in clips), default=0)
    return bisect_right(range(1, longest + 1), budget, key=needed)
