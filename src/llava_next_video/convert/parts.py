"""What every converted checkpoint needs beside its weights: placeholders, processor, generation config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from llava_next_video.convert.tensors import Weight, read_weights
from llava_next_video.convert.tokenizer import IMAGE, VIDEO
from llava_next_video.model import LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration
from llava_next_video.model.checkpoint import refuse_loading
from llava_next_video.model.layouts import RECOMPUTED, in_memory, on_hub
from llava_next_video.model.weights import skeleton
from llava_next_video.processing import (
    LlavaNextImageProcessor,
    LlavaNextVideoImageProcessor,
    LlavaNextVideoProcessor,
)
from llava_next_video.processing.loading import add_placeholders

VOCABULARY = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")
"""Weights with a row for each id, as the hub names them."""

ROWS = 64
"""The vocabulary grows to a multiple of this, as in the published conversions."""

_HALF = [0.5, 0.5, 0.5]


def with_placeholders(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with `<video>` and `<image>`, and padding on the left."""
    add_placeholders(tokenizer)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def hub_weights(folder: Path) -> dict[str, Weight]:
    """The weights of a folder in any layout that we load, named as on the hub; none is read yet.

    Raises:
        CheckpointError: no weights, a missing shard, a corrupt file, or a weight in two files.
    """
    return {
        on_hub(in_memory(name)): weight
        for name, weight in read_weights(folder).items()
        if not RECOMPUTED.search(name)
    }


def with_vocabulary(
    weights: Mapping[str, Weight], config: LlavaNextVideoConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, Weight], list[str]]:
    """The weights with a row for every id of the tokenizer, and what was done; the config gets the number."""
    text, highest = config.text_config, max(tokenizer.get_vocab().values())
    if highest < text.vocab_size:
        return dict(weights), []
    rows = math.ceil((highest + 1) / ROWS) * ROWS
    grown = dict(weights) | {name: weights[name].with_rows(rows) for name in VOCABULARY if name in weights}
    note = f"vocabulary grown from {text.vocab_size} to {rows} rows for {VIDEO} and {IMAGE}"
    text.vocab_size = rows
    return grown, [note]


def refuse_unfit(name: str, weights: Mapping[str, Weight], config: LlavaNextVideoConfig) -> None:
    """Raise unless these are the weights that the config asks for, named as on the hub.

    Raises:
        CheckpointError: with the names of the weights that are missing, unknown or of another size.
    """
    model = skeleton(config)
    wanted = {key: tuple(value.shape) for key, value in model.named_parameters(remove_duplicate=False)}
    found = {in_memory(key): weight.shape for key, weight in weights.items()}
    refuse_loading(
        name,
        {
            "missing_keys": wanted.keys() - found.keys() - model.all_tied_weights_keys.keys(),
            "mismatched_keys": [
                (key, found[key], shape)
                for key, shape in wanted.items()
                if key in found and found[key] != shape
            ],
            "unexpected_keys": found.keys() - wanted.keys(),
        },
        allows_other_sizes=False,
    )


def write_config(folder: Path, config: LlavaNextVideoConfig, weights: Mapping[str, Weight]) -> None:
    """Write config.json, which names the class and the number format that most weights have."""
    sizes: dict[torch.dtype, int] = {}
    for weight in weights.values():
        sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.size_bytes
    config.dtype = max(sizes, key=lambda dtype: sizes[dtype])
    config.architectures = [LlavaNextVideoForConditionalGeneration.__name__]
    config.save_pretrained(folder)


def checkpoint_processor(
    config: LlavaNextVideoConfig, tokenizer: PreTrainedTokenizerBase, template: str
) -> LlavaNextVideoProcessor:
    """The processor a tower was trained with: CLIP sees the middle of a frame, SigLIP all of it, squeezed.

    Source: LLaVA-NeXT, `multimodal_encoder/siglip_encoder.py`, `SigLipImageProcessor`; CLIP's own
    preprocessor_config.json.
    """
    side = config.vision_config.image_size
    square = {"height": side, "width": side}
    if config.vision_config.model_type == "siglip_vision_model":
        pixels: dict[str, object] = {
            "size": square,
            "do_center_crop": False,
            "image_mean": _HALF,
            "image_std": _HALF,
        }
    else:
        pixels = {"size": {"shortest_edge": side}, "crop_size": square}
    class_token = config.vision_feature_select_strategy == "default"
    return LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoImageProcessor.from_dict(pixels),
        image_processor=LlavaNextImageProcessor.from_dict(
            pixels, image_grid_pinpoints=config.image_grid_pinpoints
        ),
        tokenizer=tokenizer,
        chat_template=template,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=int(class_token),
        spatial_pool_stride=config.spatial_pool_stride,
        spatial_pool_mode=config.spatial_pool_mode,
        video_newline=config.video_newline,
        image_tile_limit=config.image_tile_limit,
        add_faster_video=config.add_faster_video,
        faster_token_stride=config.faster_token_stride,
    )


def generation_config(
    folder: Path, config: LlavaNextVideoConfig, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Where answers end: what the folder says, the text network's end, and the end of a ChatML turn.

    The original stops at the separator of its template, whatever the ids say.
    """
    text = config.text_config
    settings = GenerationConfig(bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id)
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder)
    told = settings.eos_token_id
    ends = [] if told is None else [told] if isinstance(told, int) else list(told)
    ends += [id for id in (tokenizer.eos_token_id,) if id is not None and id not in ends]
    turn = tokenizer.get_vocab().get("<|im_end|>")
    if turn is not None and turn not in ends:
        ends.append(turn)
    settings.eos_token_id = ends[0] if len(ends) == 1 else ends
    settings.pad_token_id = tokenizer.pad_token_id
    return settings
