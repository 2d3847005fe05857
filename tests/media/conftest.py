"""Films that the tests make themselves, and what a straight decode says of them."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

Film = Callable[..., Path]


def scene(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    """A mosaic that slides, is flipped at cuts, and has a square running over it: no two frames alike."""
    random = np.random.default_rng(0)
    mosaic = np.kron(random.integers(0, 256, (40, 60, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    for number in range(count):
        if number and number % 37 == 0:
            mosaic = mosaic[::-1].copy()
        frame = mosaic[number % 90 :, (3 * number) % 140 :][:height, :width].copy()
        y, x = (5 * number) % (height - 10), (7 * number) % (width - 10)
        frame[y : y + 10, x : x + 10] = (5 * number) % 256
        yield frame


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """Encode the scene by PyAV alone, with any encoder option; each film is made once."""
    folder = tmp_path_factory.mktemp("films")
    made: dict[str, Path] = {}

    def make(
        suffix: str = "mp4",
        encoder: str = "libx264",
        *,
        count: int = 60,
        size: tuple[int, int] = (64, 96),
        pixels: str = "yuv420p",
        gop: int = 12,
        rate: int = 25,
        ticks: tuple[int, ...] | None = None,
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        sound_s: float = 0.0,
    ) -> Path:
        """`ticks` are time stamps in thousandths of a second, for clips whose rate varies."""
        wanted = repr(
            (suffix, encoder, count, size, pixels, gop, rate, ticks, options, container_options, sound_s)
        )
        if wanted not in made:
            path = folder / f"{len(made)}.{suffix}"
            with av.open(str(path), "w", options=container_options or {}) as container:
                stream = container.add_stream(encoder, rate=rate)
                stream.height, stream.width = size
                stream.pix_fmt = pixels
                stream.codec_context.gop_size = gop
                stream.codec_context.thread_count = 1
                stream.codec_context.options = options or {}
                if ticks is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                sound = container.add_stream("aac", rate=16000) if sound_s else None
                for number, pixels_rgb in enumerate(scene(count, *size)):
                    frame = av.VideoFrame.from_ndarray(pixels_rgb, format="rgb24")
                    frame.pts = number if ticks is None else ticks[number]
                    frame.time_base = Fraction(1, rate) if ticks is None else Fraction(1, 1000)
                    container.mux(stream.encode(frame))
                    if sound is not None:
                        silence = np.zeros((1, round(16000 * sound_s / count)), np.float32)
                        heard = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                        heard.rate = 16000
                        container.mux(sound.encode(heard))
                container.mux(stream.encode(None))
                if sound is not None:
                    container.mux(sound.encode(None))
            made[wanted] = path
        return made[wanted]

    return make


@pytest.fixture(scope="session")
def straight() -> Callable[[Path], list[np.ndarray]]:
    """All frames of a file as PyAV's own decoding loop gives them."""
    seen: dict[Path, list[np.ndarray]] = {}

    def decode(path: Path) -> list[np.ndarray]:
        if path not in seen:
            with av.open(str(path)) as container:
                seen[path] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return seen[path]

    return decode
