"""What the GPU sections share: shapes, random weights drawn where they are used, clocks."""

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig

from llava_next_video.engine import Engine, EngineSettings
from llava_next_video.engine.build import build
from llava_next_video.engine.roofline import Machine, measured
from llava_next_video.engine.settings import SUITED
from llava_next_video.inputs import Medium, ModelInputs
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.weights import skeleton

END, IMAGE, VIDEO, FIRST_WORD = 2, 3, 4, 10
HEAD, TAIL = 32, 32
"""Words before and behind a clip, 64 in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Widths in features, sides in pixels: tower and text as (width, inner width, layers, heads)."""

    image: int
    patch: int
    tower: tuple[int, int, int, int]
    text: tuple[int, int, int, int]
    vocabulary: int
    positions: int


SHAPES = {
    # Source: the config.json of llava-hf/LLaVA-NeXT-Video-7B-hf (CLIP ViT-L/14-336, Vicuna-7B v1.5).
    "7b": Shape(
        image=336,
        patch=14,
        tower=(1024, 4096, 24, 16),
        text=(4096, 11008, 32, 32),
        vocabulary=32064,
        positions=10240,
    ),
    "tiny": Shape(
        image=56, patch=14, tower=(64, 128, 3, 4), text=(64, 128, 2, 4), vocabulary=320, positions=2048
    ),
}


def configuration(
    shape: Shape, *, text_layers: int | None = None, tower_layers: int | None = None
) -> LlavaNextVideoConfig:
    """A configuration of that shape, or of fewer layers."""
    width, inner, layers, heads = shape.text
    tower_width, tower_inner, tower_depth, tower_heads = shape.tower
    vision = CLIPVisionConfig(
        hidden_size=tower_width,
        intermediate_size=tower_inner,
        num_hidden_layers=tower_layers or tower_depth,
        num_attention_heads=tower_heads,
        image_size=shape.image,
        patch_size=shape.patch,
        projection_dim=tower_width,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=text_layers or layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=shape.positions,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
    )
    return LlavaNextVideoConfig(vision, text, image_token_index=IMAGE, video_token_index=VIDEO)


class Drawn:
    """Random weights of a network without weights, drawn on the device module by module."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype

    def bring(self, module: nn.Module, *, inner: bool = True) -> None:
        """Draw the weights of a module."""
        for name, parameter in list(module.named_parameters(recurse=inner)):
            owner, _, leaf = name.rpartition(".")
            drawn = torch.empty(parameter.shape, dtype=self._dtype, device=self._device)
            if leaf == "bias":
                drawn.zero_()
            elif parameter.dim() == 1 and "norm" in name:
                drawn.fill_(1.0)
            else:
                drawn.normal_(std=0.02)
            setattr(module.get_submodule(owner), leaf, nn.Parameter(drawn, requires_grad=False))

    def release(self, module: nn.Module) -> None:
        """Forget them."""
        module.to("meta")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every section is given.

    Attributes:
        device: Where to measure.
        shape: Of the networks.
        smoke: Few repeats: does it run?
        tell: Hears of progress.
        results: Figures of the sections before.
    """

    device: torch.device
    shape: Shape
    smoke: bool
    tell: Callable[[str], None]
    results: dict[str, dict[str, object]]

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 on a GPU."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def new_tokens(self) -> int:
        """Of a caption."""
        return 128 if self.device.type == "cuda" else 8

    def settings(self) -> EngineSettings:
        """Limits for the device."""
        if self.device.type == "cuda":
            return SUITED["cuda"]
        return replace(SUITED["cpu"], kv_bytes=1 << 24, dtype="float32", ahead=True)

    def engine(self, settings: EngineSettings | None = None) -> Engine:
        """An engine with random weights."""
        started = time.perf_counter()
        torch.manual_seed(0)
        config = configuration(self.shape)
        model = skeleton(config)
        made = Engine(build(model, Drawn(self.device, self.dtype), settings or self.settings(), None))
        self.wait()
        room = made.pages.count * made.pages.page_tokens
        self.tell(f"engine built in {time.perf_counter() - started:.1f} s, room for {room} tokens")
        return made

    def machine(self) -> Machine:
        """What the device does at its best."""
        best = measured(self.dtype, "none", self.device)
        if self.device.type != "cuda":
            return best
        return replace(best, bytes_per_s=max(best.bytes_per_s, copied_bytes_per_s(self.device)))

    def wait(self) -> None:
        """Until the device has nothing more to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give memory of a section back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def copied_bytes_per_s(device: torch.device) -> float:
    """Bytes that a large copy reads and writes."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    best = min(timed_s(lambda: target.copy_(source)) for _ in range(5))
    return 2 * source.nbytes / best


def timed_s(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of work on the current GPU, each time."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / times


@dataclass(frozen=True, slots=True)
class Bytes:
    """Frames as bytes, which become the tower's floats on the device."""

    frames: Tensor

    def __call__(self) -> Tensor:
        return self.on(torch.device("cpu"))

    def on(self, device: torch.device) -> Tensor:
        """The frames, from -1 to 1."""
        frames = self.frames
        if device.type == "cuda":
            frames = frames.pin_memory().to(device, non_blocking=True)
        return frames.float().mul_(1 / 127.5).sub_(1)


def asked(bench: Bench, *, frames: int, tail: int = TAIL, same: int | None = None) -> Iterator[ModelInputs]:
    """Endless prompts about new clips of noise; with `same`, so many different questions about each."""
    config = configuration(bench.shape)
    dice = torch.Generator().manual_seed(frames)
    tokens = config.video_layout(frames).tokens
    side, number = bench.shape.image, 0
    pixels = torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8, generator=dice)
    head = words(bench, HEAD, dice)
    while True:
        number += 1
        key = hashlib.sha256(f"{frames} {number} {same} {time.perf_counter_ns()}".encode())
        clip = Medium(
            kind="video", start=HEAD, tokens=tokens, key=key.digest(), size=None, pixels=Bytes(pixels)
        )
        for _ in range(same or 1):
            ids = (*head, *[VIDEO] * tokens, *words(bench, tail, dice))
            yield ModelInputs(ids=ids, media=(clip,))


def words(bench: Bench, count: int, dice: torch.Generator) -> list[int]:
    """Random words."""
    return torch.randint(FIRST_WORD, bench.shape.vocabulary, (count,), generator=dice).tolist()
