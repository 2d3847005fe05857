"""What a medium shows, as small JPEG pictures."""

import io

from PIL import Image

from llava_next_video.media.clip import Clip, Picture

_QUALITY = 80


def thumbnails(seen: Clip | Picture, *, height: int) -> list[bytes]:
    """Each frame of a clip, or the picture, whole and at most so many pixels high, as JPEG files."""
    pictures = [seen.image] if isinstance(seen, Picture) else map(Image.fromarray, seen.frames)
    return [_jpeg(picture, min(height, picture.height)) for picture in pictures]


def _jpeg(picture: Image.Image, height: int) -> bytes:
    width = max(1, round(picture.width * height / picture.height))
    file = io.BytesIO()
    picture.resize((width, height), Image.Resampling.BILINEAR).save(file, format="JPEG", quality=_QUALITY)
    return file.getvalue()
