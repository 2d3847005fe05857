"""Weights from elsewhere, and checkpoints made from nothing but a shape."""

from llava_next_video.convert.image import image_to_video
from llava_next_video.convert.original import Converted, hub_to_original, original_to_hub
from llava_next_video.convert.presets import PRESETS, Preset
from llava_next_video.convert.push import push
from llava_next_video.convert.random import Written, write_random
from llava_next_video.convert.registry import PUBLISHED, Published
from llava_next_video.convert.wishes import Wishes, read_wishes

__all__ = [
    "PRESETS",
    "PUBLISHED",
    "Converted",
    "Preset",
    "Published",
    "Wishes",
    "Written",
    "hub_to_original",
    "image_to_video",
    "original_to_hub",
    "push",
    "read_wishes",
    "write_random",
]
