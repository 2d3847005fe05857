"""Describe a million videos, each once."""

from llava_next_video.caption.desk import Settings
from llava_next_video.caption.feed import share
from llava_next_video.caption.figures import Figures, estimate
from llava_next_video.caption.items import Item, list_items
from llava_next_video.caption.job import caption, on_this_machine
from llava_next_video.caption.outcome import Describer, DescriberGoneError, Model, Said, Seen, Sight
from llava_next_video.caption.seeing import see_frames

__all__ = [
    "Describer",
    "DescriberGoneError",
    "Figures",
    "Item",
    "Model",
    "Said",
    "Seen",
    "Settings",
    "Sight",
    "caption",
    "estimate",
    "list_items",
    "on_this_machine",
    "see_frames",
    "share",
]
