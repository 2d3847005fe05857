"""Scenes to files: real clips, pictures, and a LLaVA JSON file with the questions about them."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from llava_next_video.errors import ConfigError
from llava_next_video.media import write_clip
from llava_next_video.size import Size
from llava_next_video.world.conversations import Row, converse, llava_row
from llava_next_video.world.draw import draw, to_bytes
from llava_next_video.world.imagine import random_detail, random_scene
from llava_next_video.world.scene import Scene
from llava_next_video.world.wordings import Family

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """How a clip is taken: its size in pixels, its frames with their times (0 to 1), and its codec.

    Attributes:
        crf: Quality of the codec: lower is better and larger.
    """

    size: Size
    times: tuple[float, ...]
    frames_per_second: float = 12.0
    codec: Literal["h264", "vp9"] = "h264"
    crf: int = 23


def random_film(rng: random.Random, scene: Scene) -> Film:
    """A size with the scene's aspect, 16 to 40 frames whose times jitter, any usual rate and quality."""
    area = rng.uniform(112, 288) ** 2
    height, width = (round(math.sqrt(area * ratio) / 2) * 2 for ratio in (1 / scene.aspect, scene.aspect))
    frames = rng.randint(16, 40)
    times = [(index + rng.uniform(-0.3, 0.3)) / (frames - 1) for index in range(frames)]
    return Film(
        size=Size(height, width),
        times=tuple(min(max(time, 0.0), 1.0) for time in times),
        frames_per_second=rng.choice((8.0, 10.0, 12.0, 15.0, 24.0, 25.0, 30.0)),
        codec="vp9" if rng.random() < 0.1 else "h264",
        crf=rng.randint(18, 30),
    )


def film(scene: Scene, path: str | os.PathLike[str], how: Film) -> Path:
    """Write one clip of a scene; the container follows from the suffix of the path."""
    frames = frames_of(scene, how)
    return write_clip(path, frames, how.frames_per_second, codec=how.codec, crf=how.crf)


def frames_of(scene: Scene, how: Film) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames of a clip before any codec has touched them."""
    parts = [how.times[start : start + _AT_ONCE] for start in range(0, len(how.times), _AT_ONCE)]
    return np.concatenate([to_bytes(draw([scene], [part], how.size)[0]) for part in parts])


def picture_of(scene: Scene, size: Size) -> UInt8[np.ndarray, "height width 3"]:
    """A still picture of a scene."""
    return to_bytes(draw([scene], [[0.0]], size)[0, 0])


def write_picture(scene: Scene, path: str | os.PathLike[str], size: Size) -> Path:
    """Write a still picture of a scene as PNG."""
    target = Path(path)
    target.write_bytes(_png(picture_of(scene, size)))
    return target


def write_world(
    out: str | os.PathLike[str],
    *,
    clips: int,
    images: int,
    seed: int,
    turns: int = 6,
    things: int | None = None,
    families: frozenset[Family] | None = None,
    told: Callable[[int], None] | None = None,
) -> Path:
    """Write `out/world.json` (LLaVA rows), `out/videos` and `out/images`; gives the path of the JSON file.

    Sample number `n` depends on the seed and `n` alone, so a longer world begins with the shorter one. `told`
    is called with the number of samples written so far. A third of the pictures have fine patterns. With
    `families` only their questions are asked; a scene that allows none gets no row.

    Raises:
        ConfigError: A negative number of clips or images, or less than one turn.
    """
    if clips < 0 or images < 0 or turns < 1:
        raise ConfigError(f"expected clips, images >= 0 and turns >= 1, got {clips}, {images} and {turns}")
    root = Path(out)
    (root / "videos").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    target = root / "world.json"
    with target.open("w", encoding="utf-8") as file:
        file.write("[")
        for count, row in enumerate(_rows(root, clips, images, seed, turns, things, families), 1):
            file.write(("\n" if count == 1 else ",\n") + json.dumps(row, ensure_ascii=False))
            if told is not None:
                told(count)
        file.write("\n]\n")
    return target


def clip_scene(seed: int, number: int, things: int | None = None) -> tuple[Scene, Film, random.Random]:
    """Scene and film of one clip of a written world, and the dice that its questions are drawn with."""
    rng = random.Random(f"clip {seed}/{number}")
    scene = random_scene(rng, things=things)
    return scene, random_film(rng, scene), rng


def picture_scene(seed: int, number: int, things: int | None = None) -> tuple[Scene, Size, random.Random]:
    """Scene and size of one picture of a written world, and the dice that its questions are drawn with."""
    rng = random.Random(f"image {seed}/{number}")
    scene = random_detail(rng) if rng.random() < 0.35 else random_scene(rng, things=things, still=True)
    area = rng.uniform(120, 240) ** 2
    height, width = (round(math.sqrt(area * ratio)) for ratio in (1 / scene.aspect, scene.aspect))
    return scene, Size(height, width), rng


def _rows(
    root: Path,
    clips: int,
    images: int,
    seed: int,
    turns: int,
    things: int | None,
    families: frozenset[Family] | None,
) -> Iterator[Row]:
    for number in range(clips):
        scene, how, rng = clip_scene(seed, number, things)
        name = f"videos/{number:06d}.mp4"
        if questions := converse(scene, rng, rng.randint(1, turns), families):
            film(scene, root / name, how)
            yield llava_row(f"clip-{number:06d}", name, scene, questions)
    for number in range(images):
        scene, size, rng = picture_scene(seed, number, things)
        name = f"images/{number:06d}.png"
        if questions := converse(scene, rng, rng.randint(1, turns), families):
            write_picture(scene, root / name, size)
            yield llava_row(f"image-{number:06d}", name, scene, questions)


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A PNG file: header, one compressed block of unfiltered rows, end.

    Source: PNG specification (W3C), sections 5 and 9.
    """
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def block(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = (block(b"IHDR", header), block(b"IDAT", zlib.compress(rows, 6)), block(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
