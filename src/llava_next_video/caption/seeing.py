"""A video's frames, or why there are none."""

from __future__ import annotations

import errno
import os

from llava_next_video.caption.cells import Cell, Missing
from llava_next_video.caption.duplicates import look_of
from llava_next_video.caption.items import Item
from llava_next_video.caption.outcome import Seen, Sight, TransientError
from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media import Clip, Sampling
from llava_next_video.messages import Video

PASSING = (
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENOMEM,
)


def see_frames(item: Item, decoder: Decoder, sampling: Sampling, *, look: bool) -> Seen:
    """The sampled frames of a video, decoded in a process that may die of it.

    Raises:
        MediaError: It cannot be read; `TransientError` where trying again may help.
    """
    source = item.source.read() if isinstance(item.source, Cell | Missing) else item.source
    try:
        clip = decoder.read(Video(source=source), sampling)
    except MediaError as error:
        if may_pass(item, error):
            raise TransientError(str(error)) from error
        raise
    assert isinstance(clip, Clip)
    sight = Sight(
        sha256=clip.key.hex(),
        prompt=item.prompt,
        duration_s=clip.duration_s,
        look=look_of(clip.frames) if look else None,
    )
    return Seen(sight=sight, times_s=clip.times_s, bytes=clip.frames.nbytes, content=clip)


def may_pass(item: Item, error: MediaError) -> bool:
    """Whether a video that could not be read may be readable later.

    So it is with downloads, storage that stumbled, and decoders that died or were stopped (once more; then
    it is the video). What is missing, damaged or too large stays so.
    """
    told = str(error)
    if isinstance(error, MediaLimitError):
        return False
    if isinstance(item.source, str) and item.source.startswith(("http://", "https://")):
        return not any(f"answered {status}" in told for status in (400, 401, 403, 404, 410, 415))
    passing = any(os.strerror(number).lower() in told.lower() for number in PASSING)
    return passing or "the decoder died" in told or "the decoder was stopped" in told
