"""Media of requests: fetched and decoded in children, kept for the next question.

Everything that comes from outside is touched in a child process that can be killed: by its time-out, by the
request's deadline, or because the client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import torch
from PIL import Image as Pillow

from llava_next_video.data.decoder import Decoder
from llava_next_video.errors import MediaError, MediaLimitError
from llava_next_video.media import Clip, Picture, Sampling, fetch, thumbnails
from llava_next_video.media.fetch import data_url_frames
from llava_next_video.messages import Image, Video
from llava_next_video.processing.frames import ANTIALIASED, resized
from llava_next_video.processing.settings import PixelSettings
from llava_next_video.serve.metrics import Metrics
from llava_next_video.serve.reading import Wanted
from llava_next_video.serve.refusals import Refusal
from llava_next_video.serve.settings import ServeSettings
from llava_next_video.size import Size

Key = tuple[object, ...]

# A decoder whose client has gone may finish what it does; killing it would cost a new process.
GRACE_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A medium as it was read; `small` are its thumbnails, where they were asked for."""

    medium: Clip | Picture
    small: tuple[bytes, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        if isinstance(self.medium, Clip):
            return self.medium.frames.nbytes
        return self.medium.size.area * 3


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A medium whose bytes came with the request, or still have to be fetched by the child."""

    source: object
    key: str
    frames: int | None


class MediaDesk:
    """Reads media for requests, a few at a time, within so many bytes."""

    def __init__(self, settings: ServeSettings, pixels: PixelSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._policy = settings.policy
        self._pixels = pixels
        self._metrics = metrics
        self._idle: asyncio.LifoQueue[Decoder] = asyncio.LifoQueue()
        self.decoders = tuple(
            Decoder(timeout_s=settings.decode_s, limits=settings.limits, policy=self._policy)
            for _ in range(settings.decoders)
        )
        for decoder in self.decoders:
            self._idle.put_nowait(decoder)
        self._threads = ThreadPoolExecutor(settings.decoders, thread_name_prefix="media")
        self._kept: OrderedDict[Key, Seen] = OrderedDict()
        self._reading: dict[Key, asyncio.Event] = {}
        self._space = asyncio.Condition()
        self.held_bytes = 0

    @property
    def busy(self) -> int:
        """Decoders at work."""
        return len(self.decoders) - self._idle.qsize()

    async def warm_up(self) -> None:
        """Start every child, so that no client pays for it."""
        file = BytesIO()
        Pillow.new("RGB", (8, 8)).save(file, format="PNG")
        dot = Image(source=file.getvalue())
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(self._threads, one.read, dot, Sampling()) for one in self.decoders)
        )

    def close(self) -> None:
        """End the children."""
        for decoder in self.decoders:
            _kill(decoder)
        self._threads.shutdown()
        for decoder in self.decoders:
            decoder.close()

    @asynccontextmanager
    async def seen(
        self, wanted: Sequence[Wanted], tenant: bytes, *, height: int | None = None
    ) -> AsyncGenerator[tuple[Seen, ...]]:
        """The media of one request, which hold their memory until the block is left.

        Args:
            wanted: What the request names.
            tenant: What was kept for another tenant does not exist for this one.
            height: Also make thumbnails of that many pixels.

        Raises:
            MediaError: One of them cannot be read.
            Refusal: Only its name was given, and it is not known (any more).
        """
        held = 0
        try:
            got: list[Seen] = []
            if wanted:
                decoder = await self._turn()
                try:
                    for one in wanted:
                        got.append(await self._see(one, tenant, height, decoder))
                        held += got[-1].nbytes
                        self.held_bytes += got[-1].nbytes
                finally:
                    self._idle.put_nowait(decoder)
            yield tuple(got)
        finally:
            if held:
                self.held_bytes -= held
                async with self._space:
                    self._space.notify_all()

    async def _turn(self) -> Decoder:
        """A decoder, once there is one and there is memory for what it gives."""
        async with self._space:
            await self._space.wait_for(lambda: self.held_bytes < self._settings.held_bytes)
        return await self._idle.get()

    async def _see(self, wanted: Wanted, tenant: bytes, height: int | None, decoder: Decoder) -> Seen:
        self._metrics.media_queries.inc()
        if wanted.url is None or wanted.name is not None:
            key: Key = (tenant, "name", wanted.name, wanted.kind, wanted.sampling, wanted.every_frame)
            known = self._known(key, height)
            if known is not None:
                return known
            if wanted.url is None:
                raise Refusal(
                    400,
                    f"no {wanted.kind} {wanted.name!r} is known with these frames; send its url again",
                    "media_unknown",
                    "uuid",
                )
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._threads, self._load, wanted)
        sampling = wanted.sampling if loaded.frames is None else Sampling(frames=loaded.frames)
        if wanted.name is None:
            key = (tenant, "bytes", loaded.key, wanted.kind, sampling)
        while key in self._reading:
            await self._reading[key].wait()
        known = self._known(key, height) if loaded.key or wanted.name is not None else None
        if known is not None:
            return known
        self._reading[key] = done = asyncio.Event()
        try:
            medium = Video(source=loaded.source) if wanted.kind == "video" else Image(source=loaded.source)
            seen = await self._decode(decoder, medium, sampling, height)
        finally:
            del self._reading[key]
            done.set()
        if loaded.key or wanted.name is not None:
            self._keep(key, seen)
        return seen

    def _load(self, wanted: Wanted) -> _Loaded:
        """The bytes of a data URL; what is elsewhere is fetched by the child, under the same policy."""
        url = wanted.url or ""
        if url[:5].lower() != "data:":
            return _Loaded(url, "", None)
        limits = self._settings.limits
        frames = data_url_frames(url, limits, self._policy) if wanted.kind == "video" else None
        if frames is None:
            data = fetch(url, limits, self._policy)
            return _Loaded(data, hashlib.sha256(data).hexdigest(), None)
        if sum(map(len, frames)) > limits.bytes:
            raise MediaLimitError(f"data URL: more than {limits.bytes} bytes, which is the limit")
        most = self._settings.max_frames
        if wanted.every_frame and len(frames) > most:
            raise MediaLimitError(f"{len(frames)} frames, and this server looks at {most} at most")
        key = hashlib.sha256(b"".join(hashlib.sha256(frame).digest() for frame in frames)).hexdigest()
        return _Loaded(frames, f"frames {key}", len(frames) if wanted.every_frame else None)

    async def _decode(
        self, decoder: Decoder, medium: Image | Video, sampling: Sampling, height: int | None
    ) -> Seen:
        started = time.monotonic()
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, self._decoded, decoder, medium, sampling, height
        )
        try:
            seen = await asyncio.shield(work)
        except asyncio.CancelledError:
            await _end(work, decoder)
            raise
        except MediaError:
            self._metrics.media_errors.inc()
            raise
        self._metrics.decode_seconds.observe(time.monotonic() - started)
        self._metrics.frames.inc(len(seen.medium.frames) if isinstance(seen.medium, Clip) else 1)
        return seen

    def _decoded(
        self, decoder: Decoder, medium: Image | Video, sampling: Sampling, height: int | None
    ) -> Seen:
        got = decoder.read(medium, sampling)
        small = () if height is None else tuple(thumbnails(got, height=height))
        return Seen(medium=shrunk(got, self._pixels) if isinstance(got, Clip) else got, small=small)

    def _known(self, key: Key, height: int | None) -> Seen | None:
        seen = self._kept.get(key)
        if seen is None or (height is not None and not seen.small):
            return None
        self._kept.move_to_end(key)
        self._metrics.media_hits.inc()
        return seen

    def _keep(self, key: Key, seen: Seen) -> None:
        self._kept[key] = seen
        self._kept.move_to_end(key)
        while sum(one.nbytes for one in self._kept.values()) > self._settings.seen_bytes:
            self._kept.popitem(last=False)


def shrunk(clip: Clip, pixels: PixelSettings) -> Clip:
    """The clip with frames of the size that the processor makes of them anyway, if that is smaller.

    The model sees the same bits, and a request holds some hundred kilobytes a frame instead of megabytes.
    """
    size = Size(*clip.frames.shape[1:3])
    target = pixels.resized(size)
    if target.area >= size.area or pixels.resample not in ANTIALIASED:
        return clip
    small = resized(torch.from_numpy(clip.frames).permute(0, 3, 1, 2), target, pixels.resample)
    return replace(clip, frames=np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy()))


async def _end(work: asyncio.Future[Seen], decoder: Decoder) -> None:
    """Let go of a decoder that nobody waits for: killed, unless it is done in a moment."""
    done, _ = await asyncio.wait([work], timeout=GRACE_S)
    if not done:
        _kill(decoder)
        await asyncio.wait([work])
    with contextlib.suppress(Exception):
        work.result()


def _kill(decoder: Decoder) -> None:
    """End a decoder's child; the thread that waits for it hears of its death."""
    if decoder.child is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(decoder.child, signal.SIGKILL)
