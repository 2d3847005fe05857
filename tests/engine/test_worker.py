"""The engine with decoders that run in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.engine.conftest import SIDE, clip, medium, prompt, reference, words
from torch import Tensor

from llava_next_video.data.decoder import Decoder
from llava_next_video.engine import Engine, EngineSettings, SamplingOptions
from llava_next_video.inputs import Medium, ModelInputs
from llava_next_video.media import Clip, Sampling
from llava_next_video.messages import Video

SETTINGS = EngineSettings(dtype="float32", kv_bytes=1 << 20, token_budget=64, max_requests=16)


class Decoding:
    """Pixels that a decoder makes in another process."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def ready(self) -> bool:
        return self.future.done()

    def __call__(self) -> Tensor:
        return pixels_of(self.future.result())


def pixels_of(decoded: Clip) -> Tensor:
    frames = torch.from_numpy(decoded.frames).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(frames, (SIDE, SIDE))


def decoding(inputs: ModelInputs, future: Future[Any]) -> ModelInputs:
    one = inputs.media[0]
    promised = Medium(
        kind="video", start=one.start, tokens=one.tokens, key=one.key, size=None, pixels=Decoding(future)
    )
    return ModelInputs(ids=inputs.ids, media=(promised,))


@pytest.mark.slow
def test_a_worker_killed_in_mid_decode_costs_its_request_only(model: Any, square_clip: Path) -> None:
    engine = Engine.from_model(model, SETTINGS)
    video, sampling = Video(source=str(square_clip)), Sampling(frames=4)
    with Decoder() as doomed, Decoder() as sound, ThreadPoolExecutor(2) as threads:
        pixels = pixels_of(sound.read(video, sampling))
        other = prompt(words(1, 3), medium("video", 0, 16, None, pixels), words(2, 4))
        lost = prompt(words(1, 3), clip(1, 4), words(2, 4))
        doomed.read(video, sampling)
        assert doomed.child is not None
        os.kill(doomed.child, signal.SIGSTOP)  # so that it is surely at work when it is killed
        options = SamplingOptions(max_new_tokens=8)
        numbers = [
            engine.add(decoding(lost, threads.submit(doomed.read, video, sampling)), options),
            engine.add(decoding(other, threads.submit(sound.read, video, sampling)), options),
            engine.add(prompt(words(3, 9)), options),
        ]
        ids: dict[int, list[int]] = {number: [] for number in numbers}
        last: dict[int, Any] = {}
        deadline, killed = time.monotonic() + 60, False
        while engine.busy and time.monotonic() < deadline:
            for output in engine.step():
                ids[output.request_id] += output.ids
                last[output.request_id] = output
            if not killed and len(last) == 2 and all(output.finish for output in last.values()):
                os.kill(doomed.child, signal.SIGKILL)
                killed = True
    assert ids[numbers[1]] == reference(model, other, 8)
    assert ids[numbers[2]] == reference(model, prompt(words(3, 9)), 8)
    assert last[numbers[0]].finish == "error"
    assert "MediaError" in last[numbers[0]].error
    assert "the decoder died on it" in last[numbers[0]].error
    engine.check()
    assert engine.load().pages_used == engine.load().features_in_use == 0
