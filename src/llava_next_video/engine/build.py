"""The weights of a reference network to the parts of an engine.

A follower builds the layers alone (`built_decoder`), and only its share of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llava_next_video.engine.decoder import Decoder
from llava_next_video.engine.linear import chosen_dtype
from llava_next_video.engine.memory import refuse_too_large
from llava_next_video.engine.native import chosen_kernels
from llava_next_video.engine.parallel import WHOLE, Share
from llava_next_video.engine.rope import longest_context
from llava_next_video.engine.sampler import Sampler
from llava_next_video.engine.sampler_batched import BatchedSampler
from llava_next_video.engine.settings import SUITED, EngineSettings
from llava_next_video.engine.vision import Vision
from llava_next_video.engine.weights import Weights
from llava_next_video.engine.words import Words
from llava_next_video.errors import ConfigError
from llava_next_video.model.configuration import adopted
from llava_next_video.model.context import context_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an engine computes with."""

    decoder: Decoder
    words: Words
    vision: Vision
    sampler: Sampler
    batched: BatchedSampler
    end_ids: frozenset[int]
    settings: EngineSettings


def build(
    model: Any, weights: Weights, settings: EngineSettings, tokens: int | None, share: Share = WHOLE
) -> Parts:
    """The parts of an engine for a reference network, whose weights are brought one module at a time.

    Raises:
        CapacityError: it cannot fit the memory of the GPU.
        ConfigError: the engine does not know this text family, device or setting.
    """
    decoder = built_decoder(model, weights, settings, share)
    device, dtype, kernels = decoder.device, decoder.dtype, decoder.kernels
    config, inner = adopted(model.config), model.model
    with torch.inference_mode():
        vision = Vision(
            inner,
            config,
            weights=weights,
            device=device,
            dtype=dtype,
            quantize=settings.quantize if device.type == "cpu" else "none",
            kernels=kernels,
        )
        words = Words(
            inner.language_model,
            model.lm_head,
            weights=weights,
            device=device,
            dtype=dtype,
            between=decoder.between,
            quantize=settings.quantize,
            few_rows=settings.few_rows,
            kernels=kernels,
        )
    weights.release(model)  # the layers behind the last one that is looked at, too
    ends = model.generation_config.eos_token_id
    end_ids = frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)
    known = words.vocabulary if tokens is None else tokens
    placeholders = {config.image_token_index, config.video_token_index}
    forbidden = {token for token in placeholders if token < known} | set(range(known, words.vocabulary))
    return Parts(
        decoder=decoder,
        words=words,
        vision=vision,
        sampler=Sampler(forbidden=forbidden, model_end_ids=end_ids),
        batched=BatchedSampler(forbidden=forbidden, model_end_ids=end_ids, device=device),
        end_ids=end_ids,
        settings=settings,
    )


def built_decoder(model: Any, weights: Weights, settings: EngineSettings, share: Share = WHOLE) -> Decoder:
    """The text layers, or one share of them.

    Raises:
        CapacityError: the network cannot fit the memory of the GPU.
        ConfigError: the engine does not know this text family, device or setting.
    """
    device = torch.device(settings.device)
    if device.type not in SUITED:
        raise ConfigError(
            f"the engine computes on {' or '.join(SUITED)}, not {device}; use the reference model's "
            "generate there"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no GPU that torch can use here; take the engine's other device, cpu")
    if device.type == "cpu" and settings.kv_dtype != "auto":
        raise ConfigError(f"kv_dtype {settings.kv_dtype!r} needs a GPU; on a CPU leave it out")
    if getattr(model, "hf_quantizer", None) is not None or hasattr(model.config, "quantization_config"):
        raise ConfigError(
            "the weights are quantised already, which the engine cannot compute with; load the original with "
            'quantize="int8", or use the reference model'
        )
    config = adopted(model.config)
    dtype = chosen_dtype(settings.dtype, device, settings.quantize)
    kernels = chosen_kernels(settings.native, device, dtype, settings.quantize)
    text: Any = model.model.language_model
    longest = longest_context(text.rotary_emb, context_limit(config))
    if settings.context is not None and settings.context > longest:
        raise ConfigError(
            f"context is {settings.context}, the checkpoint can tell {longest} positions apart "
            "for the engine; ask for less, or scale its rope"
        )
    refuse_too_large(model, settings)
    with torch.inference_mode():
        return Decoder(
            text,
            weights=weights,
            context=settings.context or longest,
            scalings=settings.max_requests,
            device=device,
            dtype=dtype,
            quantize=settings.quantize,
            few_rows=settings.few_rows,
            kernels=kernels,
            share=share,
        )
