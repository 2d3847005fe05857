"""A checkpoint name and the user's wishes to a network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal

import torch

from llava_next_video.assistant.reference import Network, ReferenceNetwork
from llava_next_video.checkpoint_name import default_checkpoint, folder_named
from llava_next_video.engine import Engine
from llava_next_video.engine.settings import SUITED, read_kv_dtype, read_quantize
from llava_next_video.errors import ConfigError
from llava_next_video.model import (
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    with_rope_factor,
)
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.checkpoint import WANTED, checkpoint_folder, refuse_folder
from llava_next_video.model.configuration import UNTOLD
from llava_next_video.model.precision import FLOATS, read_dtype
from llava_next_video.model.quantised import bitsandbytes_config
from llava_next_video.processing import LlavaNextVideoProcessor

BITS: Mapping[str, Literal[4, 8]] = {"bnb-8bit": 8, "bnb-4bit": 4}
"""Quantisations of the reference network, by bitsandbytes."""


def found_checkpoint(name: str | PathLike[str] | None, files: Sequence[str] = WANTED) -> Path:
    """The folder behind a name, by default that of the package; one of the hub is fetched first.

    Raises:
        CheckpointError: A folder that holds no checkpoint, a name that is neither a folder nor owner/name, or
            the hub does not have it or does not answer.
    """
    if name is None:
        return default_checkpoint()
    folder = folder_named(name)
    if folder is None:
        return checkpoint_folder(name, files)
    refuse_folder(folder)
    return folder


def load_network(
    folder: Path,
    processor: LlavaNextVideoProcessor,
    *,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    rope_factor: float | None,
    reference: bool,
    adapter: str | PathLike[str] | None,
    kv_bytes: int | None = None,
    kv_dtype: str | None = None,
    tensor_parallel: int = 1,
) -> Network:
    """The engine with the weights of that checkpoint, or the reference network itself.

    With `tensor_parallel` above 1 that many processes share the engine's text layers.

    Raises:
        CheckpointError: The folder is missing, incomplete, corrupt or unsafe.
        ConfigError: An unknown device, dtype or quantisation, or two that do not go together.
        CapacityError: The network cannot fit the memory of the GPU.
    """
    place = _device(device)
    wanted = None if dtype is None else read_dtype(dtype)
    bits = BITS.get(quantize or "")
    stored = read_kv_dtype(kv_dtype)
    narrow = read_quantize(None if bits else quantize, others=tuple(BITS))
    reference = reference or place.type not in SUITED or bits is not None
    if quantize is not None and bits is None and reference:
        raise ConfigError(
            f"quantize={quantize!r} is the engine's; for the reference network: {', '.join(BITS)}"
        )
    if stored != "auto" and reference:
        raise ConfigError(f"kv_dtype={kv_dtype!r} is the engine's; leave it out for the reference network")
    if tensor_parallel < 1:
        raise ConfigError(f"tensor_parallel is {tensor_parallel}; it counts processes and is 1 or more")
    if tensor_parallel > 1 and reference:
        raise ConfigError(
            f"tensor_parallel={tensor_parallel} is the engine's; leave it out for the reference network"
        )
    usual = torch.float32 if place.type == "cpu" else "auto"
    numbers = FLOATS[wanted] if wanted else usual
    config = LlavaNextVideoConfig.from_pretrained(folder)
    if rope_factor is not None:
        config = with_rope_factor(config, rope_factor)
    agree_on_placeholders(config, processor)
    tokens = len(processor.tokenizer)
    extra = None if adapter is None else Adapter.read(Path(adapter))
    few_bits = bits is not None or getattr(config, "quantization_config", None) is not None
    if few_bits and tensor_parallel > 1:
        raise ConfigError(
            f"tensor_parallel={tensor_parallel} needs the engine, which cannot compute with weights that are "
            "quantised already; load the original"
        )
    if few_bits and extra is not None:
        raise ConfigError(
            f"{extra.folder} cannot be merged into quantised weights; merge it into the original first "
            "(llava-next-video train merge)"
        )
    if not reference and not few_bits:
        settings = replace(
            SUITED[place.type],
            device=str(place),
            dtype=wanted or "auto",
            quantize=narrow,
            kv_bytes=kv_bytes,
            kv_dtype=stored,
            tensor_parallel=tensor_parallel,
        )
        return Engine.from_folder(folder, settings, tokens=tokens, config=config, adapter=extra)
    given: dict[str, object] = {"config": config, "dtype": numbers}
    if few_bits:
        given["device_map"] = {"": place}
    if bits is not None:
        given["quantization_config"] = bitsandbytes_config(bits)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(folder, **given)
    if extra is not None:
        extra.merge_into(model)
    pad = processor.tokenizer.pad_token_id
    placed = model.eval() if few_bits else model.eval().to(place)
    return ReferenceNetwork(model=placed, tokens=tokens, pad_token_id=pad or 0)


def agree_on_placeholders(config: LlavaNextVideoConfig, processor: LlavaNextVideoProcessor) -> None:
    """Give the config the tokenizer's placeholder ids, with one warning where the config had others.

    The processor writes the tokenizer's ids into prompts, so a config that disagrees would find no
    placeholder (the 34B checkpoints were published that way). A checkpoint for pictures has no id for clips.

    Raises:
        ConfigError: the vocabulary has no row for a placeholder.
    """
    told = {"image": config.image_token_id, "video": config.video_token_id}
    true = {"image": processor.image_token_id, "video": processor.video_token_id}
    rows = config.text_config.vocab_size
    if max(true.values()) >= rows:
        raise ConfigError(
            f"the vocabulary has {rows} rows and none for placeholder {max(true.values())}; "
            "`llava-next-video convert image` adds one"
        )
    if told == true:
        return
    if config.video_token_id == UNTOLD:
        config.video_token_id = true["video"]
        return
    warnings.warn(
        f"config.json has placeholder ids {told}, the tokenizer {true}; the tokenizer's are used",
        stacklevel=2,
    )
    config.image_token_id = true["image"]
    config.video_token_id = true["video"]


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not usable here; try cpu, cuda or cuda:0") from error
