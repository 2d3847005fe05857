"""Clips and pictures to arrays and back: the door to `av`."""

from llava_next_video.media.clip import Clip, Picture, thinned
from llava_next_video.media.encode import Codec, write_clip
from llava_next_video.media.fetch import FetchPolicy, fetch, is_url
from llava_next_video.media.image import on_white
from llava_next_video.media.limits import Limits
from llava_next_video.media.means import Means, new_room
from llava_next_video.media.read import is_clip, read, read_clip, read_image
from llava_next_video.media.sampling import Sampling, moments
from llava_next_video.media.sheet import contact_sheet
from llava_next_video.media.source import Source
from llava_next_video.media.thumbnail import thumbnails

__all__ = [
    "Clip",
    "Codec",
    "FetchPolicy",
    "Limits",
    "Means",
    "Picture",
    "Sampling",
    "Source",
    "contact_sheet",
    "fetch",
    "is_clip",
    "is_url",
    "moments",
    "new_room",
    "on_white",
    "read",
    "read_clip",
    "read_image",
    "thinned",
    "thumbnails",
    "write_clip",
]
