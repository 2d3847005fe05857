"""Questions with known answers; scores with intervals."""

from llava_next_video.evaluate.scores import Score, wilson_interval
from llava_next_video.evaluate.world import WorldReport, examine_world

__all__ = ["Score", "WorldReport", "examine_world", "wilson_interval"]
