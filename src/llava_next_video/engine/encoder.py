"""Media into visual features, a few frames a step, each medium once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llava_next_video.engine.features import FeatureCache
from llava_next_video.engine.request import Request, State
from llava_next_video.engine.scheduler import shares
from llava_next_video.engine.vision import Vision
from llava_next_video.geometry import ImageLayout, VideoLayout
from llava_next_video.inputs import Medium


@dataclass(slots=True, kw_only=True)
class _Job:
    """A medium on its way through the tower."""

    pixels: Tensor
    layout: ImageLayout | VideoLayout
    done: list[Tensor] = field(default_factory=list)
    sent: int = 0

    @property
    def left(self) -> int:
        return len(self.pixels) - self.sent


class Encoder:
    """Takes the media of requests through the vision tower, whatever request they belong to."""

    def __init__(self, vision: Vision, features: FeatureCache, frame_budget: int) -> None:
        self.vision = vision
        self.features = features
        self.frame_budget = frame_budget
        self.frames = 0
        self._jobs: dict[bytes, _Job] = {}

    @property
    def open_jobs(self) -> int:
        """Media that are partly through the tower."""
        return len(self._jobs)

    def step(self, requests: Sequence[Request]) -> list[tuple[Request, str]]:
        """Send some frames through the tower; gives the requests whose media cannot be used, and why not."""
        failed: list[tuple[Request, str]] = []
        wanted: set[bytes] = set()
        for request in requests:
            try:
                wanted |= self._open(request)
            except Exception as error:  # whatever a decoder throws costs this request only
                failed.append((request, f"{type(error).__name__}: {error}"))
        self._jobs = {key: job for key, job in self._jobs.items() if key in wanted}
        self._send(list(self._jobs.values()))
        for key in [key for key, job in self._jobs.items() if not job.left]:
            job = self._jobs.pop(key)
            self.features.put(key, self.vision.ordered(torch.cat(job.done), job.layout))
        broken = [request for request, _ in failed]
        for request in requests:
            if request not in broken:
                self._hand_over(request)
        self.features.trim()
        return failed

    def _open(self, request: Request) -> set[bytes]:
        """Keys of the media that are still to be made for a request."""
        missing = [
            medium
            for medium in request.needed_media()
            if medium.key not in request.features and medium.key not in self.features
        ]
        for medium in missing:
            if medium.key in self._jobs or self._crowded():
                continue
            self.features.misses += 1
            pixels = medium.load_on(self.vision.device)
            self._jobs[medium.key] = _Job(pixels=pixels, layout=self.vision.layout(medium, pixels.shape))
        return {medium.key for medium in missing}

    def _crowded(self) -> bool:
        """Whether more pixels would only fill the memory of a GPU: those there are enough for this step."""
        waiting = sum(job.left for job in self._jobs.values())
        return self.vision.device.type != "cpu" and waiting >= self.frame_budget

    def _send(self, jobs: list[_Job]) -> None:
        given = shares(self.frame_budget, [job.left for job in jobs])
        sent = [(job, count) for job, count in zip(jobs, given, strict=True) if count]
        if not sent:
            return
        tiles = [job.pixels[job.sent : job.sent + count] for job, count in sent]
        hidden = self.vision.tower(tiles[0] if len(tiles) == 1 else torch.cat(tiles))
        self.frames += len(hidden)
        parts = hidden.split_with_sizes([count for _, count in sent])
        for (job, count), part in zip(sent, parts, strict=True):
            if isinstance(job.layout, VideoLayout):
                strides = job.layout.strides[job.sent : job.sent + count]
                job.done.append(self.vision.frames(part, strides))
            else:
                job.done.append(self.vision.project(part))
            job.sent += count

    def _hand_over(self, request: Request) -> None:
        needed = {medium.key for medium in request.needed_media()}
        for key in needed:
            if key in self.features:
                request.features[key] = self.features.use(key, request.id_and_index)
        if needed <= request.features.keys():
            request.state = State.RUNNING


def pixels_ready(medium: Medium) -> bool:
    """Whether pixels are there, or can be made without waiting: a promise may say so by a method `ready`."""
    ready = getattr(medium.pixels, "ready", None)
    return ready is None or bool(ready())
