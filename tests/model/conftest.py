"""Tiny networks: ours beside the one of transformers, on the same random weights."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_next_video import LlavaNextVideoConfig as TheirConfig
from transformers.models.llava_next_video import LlavaNextVideoForConditionalGeneration as TheirModel

from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration

VIDEO, IMAGE, PAD = 100, 101, 0
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
Pair = tuple[LlavaNextVideoForConditionalGeneration, PreTrainedModel]


def vision(kind: str = "clip", **changes: Any) -> PreTrainedConfig:
    """A tower of 3 layers that sees 56 pixels as 4 x 4 patches."""
    made = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}[kind]
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return made(**(sizes | {"image_size": 56, "patch_size": 14} | changes))


def text(kind: str = "llama", **changes: Any) -> PreTrainedConfig:
    """A decoder of 2 layers, 4 heads and 2 key-value heads."""
    made = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}[kind]
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 120}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 99, "pad_token_id": PAD}
    return made(**(sizes | heads | {"max_position_embeddings": 512} | changes))


def tiny(tower: str = "clip", decoder: str = "llama", **changes: Any) -> LlavaNextVideoConfig:
    """A config of both, with settings changed."""
    settings = {
        "vision_config": vision(tower),
        "text_config": text(decoder),
        "image_token_index": IMAGE,
        "video_token_index": VIDEO,
        "image_grid_pinpoints": PINPOINTS,
        "vision_feature_select_strategy": "default" if tower == "clip" else "full",
    }
    return LlavaNextVideoConfig(**(settings | changes))


def ours(config: LlavaNextVideoConfig, seed: int = 0) -> LlavaNextVideoForConditionalGeneration:
    """Our network with weights large enough to make answers differ."""
    torch.manual_seed(seed)
    model = LlavaNextVideoForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2)
    return model


def both(config: LlavaNextVideoConfig, seed: int = 0) -> Pair:
    """Our network and theirs with equal weights."""
    mine = ours(config, seed)
    theirs = TheirModel(TheirConfig(**config.to_dict())).eval()
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def their_tokens(kind: str, theirs: PreTrainedModel, pixels: Tensor, size: tuple[int, int]) -> int:
    """Visual tokens of one medium by their network, for prompts that we did not count ourselves."""
    with torch.no_grad():
        if kind == "video":
            output = theirs.model.get_video_features(pixels[None], return_dict=True)
        else:
            output = theirs.model.get_image_features(pixels[None], [list(size)], return_dict=True)
    return output.pooler_output[0].flatten(0, -2).shape[0]


TILES = {(40, 90): 3, (90, 40): 3, (100, 100): 5, (56, 56): 3, (30, 112): 3}
"""Tiles with the base tile that transformers' processor makes of images of these sizes with our pinpoints."""


def prompt(theirs: PreTrainedModel, rows: Sequence[Sequence[Any]], *, side: str = "left") -> dict[str, Any]:
    """Inputs of a batch: each row is a list of ids, `("image", height, width)` and `("video", frames)`.

    Pixels are random but depend on nothing else than the order of the media.
    """
    noise = torch.Generator().manual_seed(7)
    ids: list[list[int]] = []
    images, sizes, clips = [], [], []
    for row in rows:
        line: list[int] = []
        for part in row:
            if isinstance(part, int):
                line.append(part)
                continue
            kind, size = part[0], tuple(part[1:])
            count = TILES[size] if kind == "image" else size[0]
            pixels = torch.randn(count, 3, 56, 56, generator=noise)
            line += [IMAGE if kind == "image" else VIDEO] * their_tokens(kind, theirs, pixels, size)
            if kind == "image":
                images.append(pixels)
                sizes.append(list(size))
            else:
                clips.append(pixels)
        ids.append(line)
    longest = max(map(len, ids))
    fill = [[PAD] * (longest - len(line)) for line in ids]
    pairs = list(zip(ids, fill, strict=True))
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([pad + line if side == "left" else line + pad for line, pad in pairs]),
        "attention_mask": torch.tensor(
            [
                [0] * len(pad) + [1] * len(line) if side == "left" else [1] * len(line) + [0] * len(pad)
                for line, pad in pairs
            ]
        ),
    }
    if images:
        most = max(map(len, images))
        padded = [torch.cat([image, image.new_zeros(most - len(image), 3, 56, 56)]) for image in images]
        inputs |= {"pixel_values": torch.stack(padded), "image_sizes": torch.tensor(sizes)}
    if clips:
        stackable = len({len(clip) for clip in clips}) == 1
        inputs["pixel_values_videos"] = torch.stack(clips) if stackable else clips
    return inputs


@pytest.fixture(scope="session")
def make() -> Any:
    """The functions of this file, for tests that make their own networks."""

    class Make:
        vision = staticmethod(vision)
        text = staticmethod(text)
        tiny = staticmethod(tiny)
        ours = staticmethod(ours)
        both = staticmethod(both)
        prompt = staticmethod(prompt)

    return Make


@pytest.fixture(scope="module")
def pair() -> Pair:
    """CLIP and Llama, ours and theirs."""
    return both(tiny())


@pytest.fixture
def batch(pair: Pair) -> Callable[..., dict[str, Any]]:
    """Inputs for the pair."""
    return lambda rows, side="left": prompt(pair[1], rows, side=side)
