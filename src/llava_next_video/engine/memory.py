"""What a network needs of a device's memory, before it is loaded and after.

Computed from shapes alone, so that what cannot fit is refused before minutes of loading.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llava_next_video.engine.decoder import Decoder
from llava_next_video.engine.settings import EngineSettings, Quantize
from llava_next_video.engine.vision import Vision
from llava_next_video.engine.words import Words
from llava_next_video.errors import CapacityError
from llava_next_video.model.configuration import head_width

KV_BYTES_ON_CPU = 2 * 1024**3
_SPARE_SHARE = 24  # this part of a GPU's memory is left for recorded graphs, pixels and what lies between
_LEAST_TOKENS = 2048
_BITS: dict[Quantize, float] = {"none": 16, "int8": 8.1, "fp8": 8.1, "int4": 4.25}
_GIB = 1024**3

FP8 = torch.float8_e4m3fn
"""Keys and values in 8 bits; each token and head has a scale beside them, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes that a network needs on a GPU."""

    weights: int
    activations: int
    kv: int

    @property
    def needed(self) -> int:
        """All of it."""
        return self.weights + self.activations + self.kv

    def refuse_beyond(self, free_bytes: int, device: torch.device) -> None:
        """Raise unless so many bytes are enough.

        Raises:
            CapacityError: They are not.
        """
        if self.needed > free_bytes:
            raise CapacityError(
                f"{self.needed / _GIB:.1f} GiB needed on {device} ({self.weights / _GIB:.1f} of weights, "
                f"{self.activations / _GIB:.1f} of activations, {self.kv / _GIB:.1f} of keys and values), "
                f"{free_bytes / _GIB:.1f} are free; quantise, lower kv_bytes or token_budget, or "
                "share it among GPUs (tensor_parallel)"
            )


def stored_dtype(settings: EngineSettings, dtype: torch.dtype) -> torch.dtype:
    """The precision of stored keys and values where weights have that one."""
    return FP8 if settings.kv_dtype == "fp8" else dtype


def token_bytes(*, layers: int, key_value_heads: int, head_width: int, dtype: torch.dtype) -> int:
    """Memory of the keys and values of one token over all layers, scales of 8-bit ones included.

    >>> sizes = {"layers": 32, "key_value_heads": 32, "head_width": 128}
    >>> token_bytes(**sizes, dtype=torch.bfloat16), token_bytes(**sizes, dtype=torch.float8_e4m3fn)
    (524288, 270336)
    """
    each = head_width * dtype.itemsize + (torch.float32.itemsize if dtype is FP8 else 0)
    return layers * 2 * key_value_heads * each


def page_bytes(decoder: Decoder, settings: EngineSettings) -> int:
    """Memory of one page of an engine."""
    return settings.page_tokens * token_bytes(
        layers=len(decoder.layers),
        key_value_heads=decoder.key_value_heads,
        head_width=decoder.head_width,
        dtype=stored_dtype(settings, decoder.store_dtype),
    )


def estimate(model: Any, settings: EngineSettings, *, item_bytes: int = 2) -> Estimate:
    """What the engine needs for a network, which may be without weights; for its own share if it has one.

    Keys and values count with `kv_bytes`, or with those of 2048 tokens, below which an engine is of no use.
    """
    text, layers = model.config.text_config, model.model.language_model.layers
    share = settings.tensor_parallel
    narrow = sum(parameter.numel() for name, parameter in layers.named_parameters() if "proj" in name)
    every = sum(parameter.numel() for parameter in model.parameters())
    each = int(narrow / share * _BITS[settings.quantize] / 16 * item_bytes)
    weights = each + (every - narrow) * item_bytes
    wide = torch.float32 if item_bytes == torch.float32.itemsize else torch.bfloat16
    token_kv = token_bytes(
        layers=text.num_hidden_layers,
        key_value_heads=text.num_key_value_heads // share,
        head_width=head_width(text),
        dtype=stored_dtype(settings, wide),
    )
    rows = settings.token_budget * (4 * text.hidden_size + 3 * text.intermediate_size // share) * item_bytes
    logits = settings.max_requests * text.vocab_size * 4
    return Estimate(
        weights=weights,
        activations=2 * rows + logits,
        kv=settings.kv_bytes or _LEAST_TOKENS * token_kv,
    )


def refuse_too_large(model: Any, settings: EngineSettings) -> None:
    """Raise if a network cannot fit the GPU that the settings name; a CPU is not asked.

    Raises:
        CapacityError: It cannot fit.
    """
    device = torch.device(settings.device)
    if device.type == "cuda":
        bytes_each = 4 if settings.dtype == "float32" else 2
        needed = estimate(model, settings, item_bytes=bytes_each)
        already_there = sum(one.nbytes for one in model.parameters() if one.device.type == "cuda")
        needed.refuse_beyond(torch.cuda.mem_get_info(device)[0] + already_there, device)


def kv_bytes_for(decoder: Decoder, words: Words, vision: Vision, settings: EngineSettings) -> int:
    """Memory for keys and values: what is asked for, or what is left beside the largest step.

    It is never more than all requests could use at once.

    On a GPU the largest prompt step and the largest vision batch are run once, without attention, to see what
    they take.
    """
    if settings.kv_bytes is not None:
        return settings.kv_bytes
    if decoder.device.type == "cpu":
        return KV_BYTES_ON_CPU
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(decoder.device)
    peak = _peak_bytes(decoder, words, vision, settings)
    left = free - peak - settings.feature_bytes - total // _SPARE_SHARE
    most = settings.max_requests * decoder.context * page_bytes(decoder, settings) // settings.page_tokens
    return max(min(left, most), 0)


@torch.inference_mode()
def _peak_bytes(decoder: Decoder, words: Words, vision: Vision, settings: EngineSettings) -> int:
    """Bytes that the largest steps take beside the weights."""
    device = decoder.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    hidden = torch.zeros(settings.token_budget, decoder.width, dtype=decoder.dtype, device=device)
    words.logits(decoder.forward(hidden, None, _no_attention)[: settings.max_requests])
    del hidden
    of = vision.config.vision_config
    shape = (min(vision.tiles_at_once, settings.frame_budget), of.num_channels, of.image_size, of.image_size)
    vision.frames(vision.tower(torch.zeros(shape, device=device)))
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return peak


def _no_attention(layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
    return queries.clone(memory_format=torch.contiguous_format)
