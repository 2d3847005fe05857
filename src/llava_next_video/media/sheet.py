"""What was looked at, asked and answered, on one sheet."""

from PIL import Image, ImageDraw, ImageFont

from llava_next_video.media.clip import Clip

_TILE_WIDTH = 300
_GAP = 12
_PAPER, _INK, _FAINT, _ACCENT = "#ffffff", "#1c2430", "#6b7685", "#2563a8"
_LABEL_SIZE, _TEXT_SIZE = 15, 21


def contact_sheet(
    clip: Clip, *, question: str | None = None, answer: str | None = None, columns: int = 4
) -> Image.Image:
    """The sampled frames in rows with their times, and below them the question and the answer."""
    columns = max(1, min(columns, len(clip.frames)))
    rows = -(-len(clip.frames) // columns)
    tile_height = max(1, round(_TILE_WIDTH * clip.size.height / clip.size.width))
    label = ImageFont.load_default(_LABEL_SIZE)
    text = ImageFont.load_default(_TEXT_SIZE)
    width = columns * (_TILE_WIDTH + _GAP) + _GAP
    row_height = tile_height + _LABEL_SIZE + 8 + _GAP
    indent = round(text.getlength("Q  "))
    paragraphs = [
        (mark, color, _wrapped(words, text, width - 2 * _GAP - indent))
        for mark, color, words in (("Q", _FAINT, question), ("A", _ACCENT, answer))
        if words is not None
    ]
    line_height = round(_TEXT_SIZE * 1.4)
    text_height = sum(len(lines) * line_height + _GAP for _, _, lines in paragraphs)
    sheet = Image.new("RGB", (width, _GAP + rows * row_height + text_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (frame, time_s) in enumerate(zip(clip.frames, clip.times_s, strict=True)):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (_TILE_WIDTH + _GAP), _GAP + row * row_height
        tile = Image.fromarray(frame).resize((_TILE_WIDTH, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (x, y))
        draw.text((x, y + tile_height + 3), f"{time_s:.2f} s", fill=_FAINT, font=label)
    y = _GAP + rows * row_height
    for mark, color, lines in paragraphs:
        draw.text((_GAP, y), mark, fill=color, font=text)
        for line in lines:
            draw.text((_GAP + indent, y), line, fill=_INK, font=text)
            y += line_height
        y += _GAP
    return sheet


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
