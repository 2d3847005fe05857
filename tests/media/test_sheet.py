"""The contact sheet shows every frame, its time, the question and the answer."""

import numpy as np

from llava_next_video.media import Sampling, contact_sheet, read_clip


def clip_of(count: int):
    frames = np.zeros((count, 90, 160, 3), np.uint8)
    frames[..., 0] = np.arange(count, dtype=np.uint8)[:, None, None] * 20 + 40
    return read_clip(frames, Sampling(frames=count))


def reds(sheet) -> set[int]:
    """The frames seen, by their shade of pure red."""
    pixels = np.asarray(sheet)
    pure = (pixels[..., 1] == 0) & (pixels[..., 2] == 0)
    return {int(value) for value in np.unique(pixels[..., 0][pure])}


def test_every_frame_is_on_the_sheet_in_rows_of_four() -> None:
    sheet = contact_sheet(clip_of(6))
    assert reds(sheet) == {40, 60, 80, 100, 120, 140}
    assert contact_sheet(clip_of(4)).height < sheet.height < contact_sheet(clip_of(9)).height
    assert contact_sheet(clip_of(2)).width < sheet.width == contact_sheet(clip_of(4)).width


def test_words_make_the_sheet_longer_and_are_wrapped_inside_it() -> None:
    clip = clip_of(2)
    bare = contact_sheet(clip)
    short = contact_sheet(clip, question="What moves?", answer="A ball.")
    long = contact_sheet(clip, question="What moves?", answer="A ball that rolls. " * 20 + "x" * 300)
    assert bare.height < short.height < long.height
    assert bare.width == short.width == long.width
    margin = np.asarray(long)[bare.height :, -12:]
    assert (margin == 255).all()
