"""Pictures come upright, in RGB, with transparency and depth taken care of; animated ones are clips."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media import Limits, Sampling, is_clip, read_clip, read_image


def encoded(image: Image.Image, form: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def quarter() -> Image.Image:
    """White in its top left quarter, 40 wide and 20 high."""
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:10, :20] = 255
    return Image.fromarray(picture)


@pytest.mark.parametrize(
    ("orientation", "turn"), [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1))]
)
def test_a_photo_is_turned_by_its_exif_tag(orientation: int, turn) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_image(encoded(quarter(), "PNG", exif=exif))
    expected = turn(np.asarray(quarter()))
    assert picture.size == expected.shape[:2]
    assert (np.asarray(picture.image) == expected).all()


def test_transparency_is_laid_on_white() -> None:
    half_red = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    # 128/255 of red over white: green and blue are 255 * (1 - 128/255) = 127
    assert read_image(encoded(half_red, "PNG")).image.getpixel((0, 0)) == (255, 127, 127)


def test_a_palette_with_a_transparent_entry_is_laid_on_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 0), 1)
    data = encoded(picture, "PNG", transparency=0)
    assert np.asarray(read_image(data).image).tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_sixteen_bits_are_scaled_to_eight_and_not_cut() -> None:
    grey = np.array([[0, 257, 32768, 65535]], np.uint16)  # 65535 / 255 = 257
    for form in ("PNG", "TIFF"):
        shown = np.asarray(read_image(encoded(Image.fromarray(grey), form)).image)
        assert shown[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_from_0_to_1_are_scaled_and_others_refused() -> None:
    light = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert np.asarray(read_image(encoded(light, "TIFF")).image)[0, :, 0].tolist() == [0, 128, 255]
    heights = Image.fromarray(np.array([[-3.0, 812.5]], np.float32))
    with pytest.raises(MediaError, match=r"grey values from -3.0 to 812.5"):
        read_image(encoded(heights, "TIFF"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_comes_out_as_rgb(mode: str) -> None:
    picture = read_image(Image.new(mode, (3, 2)))
    assert picture.image.mode == "RGB"
    assert picture.size == (2, 3)


def test_a_picture_may_be_a_path_bytes_a_file_an_array_or_a_picture(tmp_path: Path) -> None:
    data = encoded(quarter(), "PNG")
    path = tmp_path / "quarter"
    path.write_bytes(data)
    expected = np.asarray(quarter())
    for source in (path, str(path), data, io.BytesIO(data), path.as_uri(), expected, quarter()):
        assert (np.asarray(read_image(source).image) == expected).all()
    assert read_image(path).key == read_image(data).key == hashlib.sha256(data).digest()


def test_arrays_of_the_same_bytes_and_other_shapes_have_other_keys() -> None:
    values = np.zeros((4, 6, 3), np.uint8)
    assert read_image(values).key != read_image(values.reshape(6, 4, 3)).key


def test_damaged_and_foreign_pictures_are_refused_in_a_sentence(film) -> None:
    with pytest.raises(MediaError, match="damaged or incomplete"):
        read_image(encoded(Image.effect_noise((64, 64), 90), "PNG")[:1500])
    with pytest.raises(MediaError, match="not a picture"):
        read_image(film())
    with pytest.raises(MediaError, match="not a picture"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(MediaError, match="expected uint8"):
        read_image(np.zeros((4, 4, 3), np.float32))
    for empty in (np.zeros((0, 4, 3), np.uint8), Image.new("RGB", (0, 4))):
        with pytest.raises(MediaError, match="empty"):
            read_image(empty)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(MediaLimitError, match="9000x9000 pixels"):
        read_image(b"P4\n9000 9000\n")
    with pytest.raises(MediaLimitError, match="too many pixels"):
        read_image(b"P4\n20000 20000\n")
    with pytest.raises(MediaLimitError, match="and the limit is 100"):
        read_image(bytes(101), Limits(bytes=100))


COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def animation(form: str, durations: list[int]) -> bytes:
    first, *others = (Image.new("RGB", (16, 8), color) for color in COLORS)
    return encoded(first, form, save_all=True, append_images=others, duration=durations, lossless=True)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animated_picture_is_a_clip_with_its_own_times(form: str) -> None:
    data = animation(form, [100, 200, 300, 400])
    assert is_clip(data)
    clip = read_clip(data)
    assert clip.frames[:, 4, 8].tolist() == [list(color) for color in COLORS]
    assert clip.times_s == pytest.approx((0.0, 0.1, 0.3, 0.6))
    assert clip.duration_s == pytest.approx(1.0)
    assert clip.size == (8, 16)
    assert read_image(data).image.getpixel((0, 0)) == COLORS[0]


def test_an_animation_is_sampled_by_time_where_its_rate_varies() -> None:
    clip = read_clip(animation("GIF", [100, 100, 800, 1000]), Sampling(how="fps", per_second=1.0))
    assert clip.indices == (0, 3)


def test_a_still_is_told_from_a_clip_by_content_and_not_by_name(tmp_path: Path, film) -> None:
    (tmp_path / "film.png").write_bytes(film().read_bytes())
    (tmp_path / "still.mp4").write_bytes(encoded(quarter(), "JPEG"))
    assert is_clip(tmp_path / "film.png")
    assert not is_clip(tmp_path / "still.mp4")
    assert not is_clip(encoded(quarter(), "GIF"))
    assert is_clip(np.zeros((2, 4, 4, 3), np.uint8))
    assert not is_clip(np.zeros((4, 4, 3), np.uint8))
    assert not is_clip(quarter())
    assert is_clip([quarter(), quarter()])


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_an_animated_photo_is_turned_by_its_exif_tag(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    shots = [quarter(), quarter().transpose(Image.Transpose.ROTATE_180)]
    data = encoded(
        shots[0], form, save_all=True, append_images=shots[1:], duration=100, lossless=True, exif=exif
    )
    clip = read_clip(data)
    assert clip.size == (40, 20)
    assert (clip.frames == [np.rot90(np.asarray(shot), -1) for shot in shots]).all()
