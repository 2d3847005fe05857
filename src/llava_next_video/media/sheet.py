"""What was looked at, asked and answered, on one sheet."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llava_next_video.media.clip import Clip, Picture

_TILE_WIDTH = 300
_GAP = 12
_PAPER, _INK, _FAINT, _ACCENT = "#ffffff", "#1c2430", "#6b7685", "#2563a8"
_LABEL_SIZE, _TEXT_SIZE = 15, 21


def contact_sheet(
    seen: Clip | Picture | Sequence[Clip | Picture],
    *,
    question: str | None = None,
    answer: str | None = None,
    columns: int = 4,
) -> Image.Image:
    """Frames in rows with their times, pictures with their names; below them the question and the answer.

    Frames stand there whole, as they were read: the model sees their central square.
    """
    media = [seen] if isinstance(seen, Clip | Picture) else list(seen)
    bands = [_tiles(medium) for medium in media]
    columns = max(1, min(columns, max(len(tiles) for tiles in bands)))
    width = columns * (_TILE_WIDTH + _GAP) + _GAP
    text = ImageFont.load_default(_TEXT_SIZE)
    indent = round(text.getlength("Q  "))
    paragraphs = [
        (mark, color, _wrapped(words, text, width - 2 * _GAP - indent))
        for mark, color, words in (("Q", _FAINT, question), ("A", _ACCENT, answer))
        if words is not None
    ]
    line_height = round(_TEXT_SIZE * 1.4)
    tiles_height = sum(-(-len(tiles) // columns) * _row_height(tiles) for tiles in bands)
    text_height = sum(len(lines) * line_height + _GAP for _, _, lines in paragraphs)
    sheet = Image.new("RGB", (width, _GAP + tiles_height + text_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _GAP
    for tiles in bands:
        y = _draw_tiles(sheet, draw, tiles, y, columns)
    for mark, color, lines in paragraphs:
        draw.text((_GAP, y), mark, fill=color, font=text)
        for line in lines:
            draw.text((_GAP + indent, y), line, fill=_INK, font=text)
            y += line_height
        y += _GAP
    return sheet


def _tiles(medium: Clip | Picture) -> list[tuple[Image.Image, str]]:
    """What a medium shows, each scaled to the width of a column, with the words below it."""
    height = max(1, round(_TILE_WIDTH * medium.size.height / medium.size.width))
    if isinstance(medium, Picture):
        shown = [(medium.image, Path(medium.name).name)]
    else:
        shown = [
            (Image.fromarray(frame), f"{time_s:.2f} s")
            for frame, time_s in zip(medium.frames, medium.times_s, strict=True)
        ]
    return [(image.resize((_TILE_WIDTH, height), Image.Resampling.LANCZOS), words) for image, words in shown]


def _row_height(tiles: list[tuple[Image.Image, str]]) -> int:
    return tiles[0][0].height + _LABEL_SIZE + 8 + _GAP


def _draw_tiles(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    tiles: list[tuple[Image.Image, str]],
    top: int,
    columns: int,
) -> int:
    """Draw the tiles of one medium in rows from `top`; gives where the next medium starts."""
    label = ImageFont.load_default(_LABEL_SIZE)
    for number, (tile, words) in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (_TILE_WIDTH + _GAP), top + row * _row_height(tiles)
        sheet.paste(tile, (x, y))
        draw.text((x, y + tile.height + 3), words, fill=_FAINT, font=label)
    return top + -(-len(tiles) // columns) * _row_height(tiles)


def _wrapped(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines no wider than this; a word that is too long is broken."""
    lines: list[str] = []
    for paragraph in words.splitlines() or [""]:
        line = ""
        for word in paragraph.split():
            candidate = f"{line} {word}" if line else word
            if font.getlength(candidate) <= width:
                line = candidate
                continue
            if line:
                lines.append(line)
            while font.getlength(word) > width and len(word) > 1:
                fit = max(
                    1, next((n for n in range(len(word), 0, -1) if font.getlength(word[:n]) <= width), 1)
                )
                lines.append(word[:fit])
                word = word[fit:]
            line = word
        lines.append(line)
    return lines
