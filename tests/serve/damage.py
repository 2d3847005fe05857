"""Media that are broken in every way we could think of."""

from __future__ import annotations

import base64
import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from llava_next_video.media import write_clip

Kind = Literal["video", "image"]
FRAMES = np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), dtype=np.uint8)


def mutated(folder: Path, count: int, *, seed: int, bombs: bool) -> Iterator[tuple[Kind, str]]:
    """So many data URLs of media: perhaps bombs first, then flips, cuts and lies in turn."""
    rng = random.Random(seed)
    originals = _originals(folder)
    first = list(_bombs()) if bombs else []
    for number in range(count):
        if number < len(first):
            kind, data = first[number]
        else:
            kind, data = rng.choice(originals)
            data = rng.choice((_flipped, _cut, _lied, _spliced))(data, rng)
        mime = "video/mp4" if kind == "video" else "image/png"
        yield kind, f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _originals(folder: Path) -> list[tuple[Kind, bytes]]:
    files = [
        write_clip(folder / "a.mp4", FRAMES, 12),
        write_clip(folder / "b.webm", FRAMES, 12, codec="vp9"),
    ]
    media: list[tuple[Kind, bytes]] = [("video", path.read_bytes()) for path in files]
    stills = [Image.fromarray(frame) for frame in FRAMES[:4]]
    for form in ("GIF", "WEBP"):
        file = io.BytesIO()
        stills[0].save(file, format=form, save_all=True, append_images=stills[1:], duration=80)
        media.append(("video", file.getvalue()))
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        stills[0].save(file, format=form)
        media.append(("image", file.getvalue()))
    return media


def _flipped(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def _lied(data: bytes, rng: random.Random) -> bytes:
    """Some number of the header says something large."""
    out = bytearray(data)
    place = rng.randrange(max(1, min(len(out) - 4, 1200)))
    out[place : place + 4] = struct.pack(">I", rng.choice((0, 0x7FFFFFFF, 0xFFFFFFFF, 100_000, 1 << 24)))
    return bytes(out)


def _spliced(data: bytes, rng: random.Random) -> bytes:
    """A piece of the file stands at another place, too."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 400)]
    place = rng.randrange(len(data))
    return data[:place] + piece + data[place:]


def _bombs() -> Iterator[tuple[Kind, bytes]]:
    """Small files that claim, or hold, very much."""
    for form in ("GIF", "PNG"):
        file = io.BytesIO()
        Image.new("L" if form == "GIF" else "RGB", (7000, 7000)).save(file, format=form)
        yield "image", file.getvalue()
        yield "video", file.getvalue()
    file = io.BytesIO()
    black = Image.new("P", (64, 64))
    black.save(file, format="GIF", save_all=True, append_images=[black] * 3, duration=20)
    once = file.getvalue()
    # The block of one picture, a hundred thousand times.
    block = once[once.rindex(b"\x21\xf9") : -1]
    yield "video", once[:-1] + block * 100_000 + b";"
    yield (
        "image",
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1 << 30, 1 << 30, 8, 2, 0, 0, 0),
    )
    canvas = b"VP8X" + struct.pack("<II", 10, 2) + b"\xfe\x3f\x00" * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    yield "image", webp
    yield "video", webp
    yield "video", b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + b";"
    yield "image", b""
