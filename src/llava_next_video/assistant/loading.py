"""A checkpoint name and the user's wishes to a network."""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib import resources
from os import PathLike
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from llava_next_video.assistant.reference import Network, ReferenceNetwork
from llava_next_video.checkpoint_name import folder_named
from llava_next_video.engine import Engine
from llava_next_video.engine.settings import SUITED, read_quantize
from llava_next_video.errors import ConfigError
from llava_next_video.model import (
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    with_rope_factor,
)
from llava_next_video.model.adapter import Adapter
from llava_next_video.model.checkpoint import named_failures, refuse_folder
from llava_next_video.model.configuration import UNTOLD
from llava_next_video.model.precision import FLOATS, read_dtype
from llava_next_video.processing import LlavaNextVideoProcessor


def default_checkpoint() -> Path:
    """The folder of the small checkpoint that comes with the package; it knows the toy world only."""
    return Path(str(resources.files("llava_next_video"))) / "checkpoint"


def refuse_name(name: str | PathLike[str]) -> None:
    """Raise when no checkpoint can be behind a name, before anything is read or asked of the hub.

    Raises:
        CheckpointError: A folder that holds no checkpoint, or a name that is neither a folder nor owner/name.
    """
    folder = folder_named(name)
    if folder is not None:
        refuse_folder(folder)


def load_network(
    name: str | PathLike[str],
    processor: LlavaNextVideoProcessor,
    *,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    rope_factor: float | None,
    reference: bool,
    adapter: str | PathLike[str] | None,
    kv_bytes: int | None = None,
) -> Network:
    """The engine with the weights of that checkpoint, or the reference network itself.

    Raises:
        CheckpointError: The folder is missing, incomplete, corrupt or unsafe.
        ConfigError: An unknown device, dtype or quantisation, or two that do not go together.
        CapacityError: The network cannot fit the memory of the GPU.
    """
    place = _device(device)
    wanted = None if dtype is None else read_dtype(dtype)
    narrow = read_quantize(quantize)
    reference = reference or place.type not in SUITED
    if quantize is not None and reference:
        raise ConfigError(f"quantize={quantize!r} is the engine's; the reference network has none")
    usual = torch.float32 if place.type == "cpu" else "auto"
    numbers = FLOATS[wanted] if wanted else usual
    config = LlavaNextVideoConfig.from_pretrained(name)
    if rope_factor is not None:
        config = with_rope_factor(config, rope_factor)
    agree_on_placeholders(config, processor)
    tokens = len(processor.tokenizer)
    extra = None if adapter is None else Adapter.read(Path(adapter))
    if not reference:
        settings = replace(
            SUITED[place.type], device=str(place), dtype=wanted or "auto", quantize=narrow, kv_bytes=kv_bytes
        )
        folder = checkpoint_folder(name)
        return Engine.from_folder(folder, settings, tokens=tokens, config=config, adapter=extra)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(name, config=config, dtype=numbers)
    if extra is not None:
        extra.merge_into(model)
    pad = processor.tokenizer.pad_token_id
    return ReferenceNetwork(model=model.eval().to(place), tokens=tokens, pad_token_id=pad or 0)


def checkpoint_folder(name: str | PathLike[str]) -> Path:
    """The folder of a checkpoint; one of the hub is fetched, or found where it was fetched to before.

    Raises:
        CheckpointError: The hub cannot be reached or does not have it.
    """
    folder = folder_named(name)
    if folder is not None:
        return folder
    with named_failures(str(name)):
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors"]))


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
