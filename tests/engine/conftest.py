"""A tiny network of transformers' own class, and prompts for it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from llava_next_video.engine.native import Kernels
from llava_next_video.engine.native.library import found_kernels
from llava_next_video.geometry import image_layout, video_layout
from llava_next_video.inputs import Medium, ModelInputs, padded_batch
from llava_next_video.size import Size

IMAGE, VIDEO, END, VOCABULARY = 301, 300, 2, 320
SIDE, PATCH = 56, 14
PINPOINTS = [[56, 112], [112, 56], [112, 112]]


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """The kernels in C++, where this machine can run and compile them."""
    found, reason = found_kernels()
    if found is None:
        pytest.skip(f"no kernels: {reason}")
    return found


def tiny(
    family: str = "llama",
    *,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **connector: Any,
) -> Any:
    """transformers' LlavaNextVideoForConditionalGeneration with random weights, large enough to disagree."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        MistralConfig,
        Qwen2Config,
        SiglipVisionConfig,
    )

    torch.manual_seed(0)
    families = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
    vision = dict(vision or {})
    towers = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}
    config = LlavaNextVideoConfig(
        vision_config=towers[vision.pop("tower", "clip")](
            **{
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "image_size": SIDE,
                "patch_size": PATCH,
                **vision,
            }
        ),
        text_config=families[family](
            **{
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "vocab_size": VOCABULARY,
                "max_position_embeddings": 1024,
                "bos_token_id": 1,
                "eos_token_id": END,
                "pad_token_id": 0,
                **(text or {}),
            }
        ),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=PINPOINTS,
        **connector,
    )
    model = LlavaNextVideoForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
            elif name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif "norm" in name and "newline" not in name:
                parameter.normal_(mean=1, std=0.2)
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = 0
    return model


@pytest.fixture(scope="session")
def model() -> Any:
    return tiny()


def clip(seed: int, frames: int, start: int = 0) -> Medium:
    """A clip of noise."""
    pixels = torch.randn(frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    layout = video_layout(frames, tile=SIDE, patch=PATCH, stride=2, mode="average", newline="no_token")
    return medium("video", start, layout.tokens, None, pixels)


def picture(seed: int, size: Size, start: int = 0) -> Medium:
    """A picture of noise, already cut into tiles."""
    layout = image_layout(size, [Size(*pair) for pair in PINPOINTS], tile=SIDE, patch=PATCH)
    pixels = torch.randn(layout.tile_count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return medium("image", start, layout.tokens, size, pixels)


def medium(kind: Any, start: int, tokens: int, size: Size | None, pixels: Tensor) -> Medium:
    key = hashlib.sha256(pixels.numpy().tobytes() + repr(size).encode()).digest()
    return Medium(kind=kind, start=start, tokens=tokens, key=key, size=size, pixels=pixels)


def prompt(*parts: Sequence[int] | Medium) -> ModelInputs:
    """Ids and media in a row."""
    ids: list[int] = []
    media: list[Medium] = []
    for part in parts:
        if isinstance(part, Medium):
            media.append(
                Medium(
                    kind=part.kind,
                    start=len(ids),
                    tokens=part.tokens,
                    key=part.key,
                    size=part.size,
                    pixels=part.pixels,
                )
            )
            ids += [VIDEO if part.kind == "video" else IMAGE] * part.tokens
        else:
            ids += part
    return ModelInputs(ids=tuple(ids), media=tuple(media))


def words(seed: int, count: int) -> list[int]:
    """Some word ids."""
    return [random.Random(seed * 1000 + i).randrange(3, 300) for i in range(count)]


def reference(model: Any, inputs: ModelInputs, new_tokens: int, **options: Any) -> list[int]:
    """What transformers' `generate` answers, without the end token, placeholders forbidden."""
    clips = {len(medium.load()) for medium in inputs.media if medium.kind == "video"}
    if len(clips) < 2:
        batch = padded_batch([inputs], pad_token_id=0)
        if clips:
            batch["pixel_values_videos"] = torch.stack(list(batch["pixel_values_videos"]))
    else:
        batch = {"inputs_embeds": _embedded(model, inputs)}  # it takes clips of one length only
    options = {"do_sample": False, "suppress_tokens": [IMAGE, VIDEO], **options}
    with torch.inference_mode():
        ids = model.generate(**batch, max_new_tokens=new_tokens, **options)[0].tolist()
    ids = ids[len(inputs.ids) :] if "input_ids" in batch else ids
    return ids[: ids.index(END)] if END in ids else ids


@torch.inference_mode()
def _embedded(model: Any, inputs: ModelInputs) -> Tensor:
    """The prompt with transformers' features in the places of the placeholders."""
    embedded = model.get_input_embeddings()(torch.tensor([inputs.ids]))
    for medium in inputs.media:
        pixels = medium.load()[None]
        if medium.kind == "video":
            seen = model.model.get_video_features(pixels).pooler_output[0]
        else:
            seen = model.model.get_image_features(pixels, torch.tensor([medium.size])).pooler_output[0]
        embedded[0, medium.start : medium.start + medium.tokens] = seen
    return embedded
