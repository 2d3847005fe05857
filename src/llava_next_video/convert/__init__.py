"""Checkpoints made from nothing but a shape."""

from llava_next_video.convert.presets import PRESETS, Preset
from llava_next_video.convert.random import Written, write_random

__all__ = ["PRESETS", "Preset", "Written", "write_random"]
