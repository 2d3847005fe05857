"""LLaVA-NeXT image checkpoints as video checkpoints: zero-shot, without a step of training."""

from __future__ import annotations

from pathlib import Path

from transformers import LlavaNextConfig

from llava_next_video.convert.card import write_card
from llava_next_video.convert.folder import folder_bytes, new_folder
from llava_next_video.convert.original import Converted
from llava_next_video.convert.parts import (
    checkpoint_processor,
    generation_config,
    hub_weights,
    refuse_unfit,
    with_placeholders,
    with_vocabulary,
    write_config,
)
from llava_next_video.convert.registry import published_as
from llava_next_video.convert.release import TEXT_CLASSES, read_json, shape_of
from llava_next_video.convert.tensors import SHARD_BYTES, total_bytes, write_weights
from llava_next_video.convert.wishes import Wishes
from llava_next_video.errors import CheckpointError
from llava_next_video.model import LlavaNextVideoConfig, with_rope_factor
from llava_next_video.processing.chat import with_clips
from llava_next_video.processing.folder import read_processor_files
from llava_next_video.processing.loading import load_tokenizer

_ADDED = ("spatial_pool_mode", "spatial_pool_stride", "video_newline", "pool_before_projector")
_SHARED = (
    "image_grid_pinpoints",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "projector_hidden_act",
    "multimodal_projector_bias",
    "tie_word_embeddings",
)


def image_to_video(
    folder: Path, out: Path, wishes: Wishes | None = None, *, shard_bytes: int = SHARD_BYTES
) -> Converted:
    """Write a LLaVA-NeXT image checkpoint (`llava_next`) as one that sees clips, too.

    The networks are the same; a clip is read as the frames of the April 2024 release are (pooled by 2 x 2,
    projected, without newlines). `<video>` gets a spare row of the vocabulary where there is one. The chat
    template is the checkpoint's own, whose loop over pictures is repeated for clips, or else that of the
    published video checkpoint of the same shape, whose language model is the same.

    Args:
        folder: What `save_pretrained` or the hub wrote.
        out: What does not exist yet, or an empty folder.
        wishes: What the user says over all that.
        shard_bytes: Largest size of a file of weights.

    Raises:
        CheckpointError: another family, missing or unknown weights, a target that exists, a full disk.
        ConfigError: a setting that does not exist, or a template that nobody told.

    Source: LLaVA-NeXT-Video blog, "zero-shot modality transfer": frames are tiles that the image model knows.
    """
    wishes = wishes or Wishes()
    values = read_json(folder / "config.json")
    kind = values.get("model_type")
    text_kind = (values.get("text_config") or {}).get("model_type", "llama")
    if kind != "llava_next" or text_kind not in TEXT_CLASSES:
        raise CheckpointError(
            f"{folder} is a {kind} on {text_kind}; supported are llava_next checkpoints on "
            f"{', '.join(TEXT_CLASSES)}"
        )
    theirs = LlavaNextConfig.from_pretrained(folder)
    shape = shape_of(theirs.text_config, theirs.vision_config)
    known = published_as(shape)
    words = with_placeholders(load_tokenizer(folder))
    own = read_processor_files(folder).chat_template
    template = with_clips(own) if isinstance(own, str) and wishes.template is None else None
    if template is None:
        template = wishes.chat_template(known.template if known else None, f"{folder}, a {shape},")
    told = {name: value for name in _ADDED if (value := getattr(wishes, name)) is not None}
    config = LlavaNextVideoConfig(
        theirs.vision_config,
        theirs.text_config,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        **{name: getattr(theirs, name) for name in _SHARED},
        **told,
    )
    weights, notes = with_vocabulary(hub_weights(folder), config, words)
    if wishes.rope_factor is not None:
        config = with_rope_factor(config, wishes.rope_factor)
        notes.append(f"positions stretched by {wishes.rope_factor:g}")
    notes.append("zero-shot: trained on pictures, not on clips")
    refuse_unfit(str(folder), weights, config)
    with new_folder(out, size_bytes=total_bytes(weights)) as partial:
        write_weights(partial, weights, shard_bytes=shard_bytes)
        write_config(partial, config, weights)
        checkpoint_processor(config, words, template).save_pretrained(partial)
        generation_config(folder, config, words).save_pretrained(partial)
        write_card(partial, config, None, notes)
    return Converted(tensors=len(weights), size_bytes=folder_bytes(out), notes=tuple(notes))
