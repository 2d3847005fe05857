"""Thumbnails show the frames, whole and small."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from llava_next_video.media import Sampling, read_clip, read_image, thumbnails


def test_each_frame_of_a_clip_becomes_a_small_picture_of_the_same_shape(square_clip: Path) -> None:
    clip = read_clip(square_clip, Sampling(frames=3))
    small = [Image.open(io.BytesIO(data)) for data in thumbnails(clip, height=36)]
    assert [picture.size for picture in small] == [(48, 36)] * 3
    # The square starts at the left edge, at a third of the height: bright red on grey.
    red, green, _ = np.asarray(small[0])[14, 3].tolist()
    assert red > 150
    assert green < 110


def test_a_picture_is_never_enlarged() -> None:
    small = Image.new("RGB", (8, 6), (0, 200, 0))
    file = io.BytesIO()
    small.save(file, format="PNG")
    (data,) = thumbnails(read_image(file.getvalue()), height=100)
    assert Image.open(io.BytesIO(data)).size == (8, 6)
