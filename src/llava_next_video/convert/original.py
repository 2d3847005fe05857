"""Checkpoints of the original release to the layout of the hub, and back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llava_next_video.convert.card import write_card
from llava_next_video.convert.folder import folder_bytes, new_folder
from llava_next_video.convert.names import to_hub, to_original
from llava_next_video.convert.parts import (
    VOCABULARY,
    checkpoint_processor,
    generation_config,
    hub_weights,
    refuse_unfit,
    with_placeholders,
    with_vocabulary,
    write_config,
)
from llava_next_video.convert.registry import Published, published_as, refuse_contradiction, relative_of
from llava_next_video.convert.release import OWN_TOWER, Release, read_json, read_release, write_release
from llava_next_video.convert.tensors import (
    SHARD_BYTES,
    Weight,
    read_weights,
    total_bytes,
    write_weights,
)
from llava_next_video.convert.towers import tower_config, tower_kind
from llava_next_video.convert.wishes import Wishes
from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.model import LlavaNextVideoConfig, with_rope_factor
from llava_next_video.model.checkpoint import refuse_folder
from llava_next_video.model.layouts import RECOMPUTED
from llava_next_video.processing.loading import load_tokenizer

KEPT = "original"
"""Folder in a converted checkpoint with the small files that it came with, for the way back."""

_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        tensors: How many weights.
        size_bytes: Of all files.
        notes: What was decided on the way, a sentence each.
    """

    tensors: int
    size_bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubForm:
    """A checkpoint of the original release as it will stand on the hub; no weight is read yet.

    Attributes:
        config: Of the network.
        weights: Named as on the hub, with the rows that the placeholders need.
        tokenizer: With the placeholders.
        template: The text of the chat template.
        known: The published checkpoint that it is, by its shape.
        notes: What was decided on the way, a sentence each.
    """

    config: LlavaNextVideoConfig
    weights: dict[str, Weight]
    tokenizer: PreTrainedTokenizerBase
    template: str
    known: Published | None
    notes: tuple[str, ...]


def in_hub_form(
    folder: Path, wishes: Wishes, *, tower: Path | None = None, tokenizer: Path | None = None
) -> HubForm:
    """Everything that a folder of the original release becomes, before anything is written.

    Raises:
        CheckpointError, ConfigError: as `original_to_hub`, the target aside.
    """
    release = read_release(folder)
    stored = _named_as_on_hub(folder)
    shapes = {name: weight.shape for name, weight in stored.items()}
    own_tower = tower or folder / OWN_TOWER
    vision, layer = tower_config(shapes, read_json(own_tower) if tower or own_tower.is_file() else None)
    shape = release.shape(tower_kind(shapes))
    refuse_contradiction(folder.resolve().name, shape)
    known = published_as(shape)
    template = wishes.chat_template(known.template if known else None, f"{folder}, a {shape},")
    words = with_placeholders(load_tokenizer(tokenizer or folder, config=release.text_config()))
    config = LlavaNextVideoConfig(
        vision,
        release.text_config(),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        vision_feature_layer=release.vision_feature_layer if layer is None else layer,
        vision_feature_select_strategy="default" if shape.tower == "clip" else "full",
        image_grid_pinpoints=release.canvases(vision.image_size),
        image_tile_limit=release.tile_limit,
        add_faster_video=release.add_faster_video,
        faster_token_stride=release.faster_token_stride,
        tie_word_embeddings=bool(release.text.get("tie_word_embeddings")),
        **_clip_settings(release, known or relative_of(shape), wishes),
    )
    weights, grown = with_vocabulary(stored, config, words)
    notes = [f"settings of {known.name}" if known else f"a {shape}, which is no published checkpoint", *grown]
    usual = known.rope_factor if known and not release.text.get("rope_scaling") else None
    if factor := wishes.rope_factor or usual:
        config = with_rope_factor(config, factor)
        notes.append(f"positions stretched by {factor:g}")
    if release.scaled_in_vain:
        notes.append(f"rope_scaling left out: the original ignores it for {release.family} networks")
    refuse_unfit(str(folder), weights, config)
    return HubForm(
        config=config,
        weights=weights,
        tokenizer=words,
        template=template,
        known=known,
        notes=tuple(notes),
    )


def original_to_hub(
    folder: Path,
    out: Path,
    wishes: Wishes | None = None,
    *,
    tower: Path | None = None,
    tokenizer: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Write a folder of the original release in the layout of the hub, complete with processor and template.

    Weights keep their bits and their number format and pass through memory in chunks. Rows for `<video>` and
    `<image>` are added where the vocabulary has none to spare.

    Args:
        folder: Of the original release: config.json, weights, tokenizer files.
        out: What does not exist yet, or an empty folder.
        wishes: What the user says over the config and the registry.
        tower: The config.json of a vision tower that is not known here.
        tokenizer: Another folder to take the tokenizer from.
        shard_bytes: Largest size of a file of weights.

    Raises:
        CheckpointError: another family, missing or unknown weights, a name that contradicts the config, a
            target that exists, a full disk.
        ConfigError: a setting that does not exist, or a template that nobody told.
    """
    form = in_hub_form(folder, wishes or Wishes(), tower=tower, tokenizer=tokenizer)
    with new_folder(out, size_bytes=total_bytes(form.weights)) as partial:
        write_weights(partial, form.weights, shard_bytes=shard_bytes)
        write_config(partial, form.config, form.weights)
        checkpoint_processor(form.config, form.tokenizer, form.template).save_pretrained(partial)
        generation_config(folder, form.config, form.tokenizer).save_pretrained(partial)
        _copy_small_files(folder, partial / KEPT)
        write_card(partial, form.config, form.known.name if form.known else None, form.notes)
    return Converted(tensors=len(form.weights), size_bytes=folder_bytes(out), notes=form.notes)


def hub_to_original(folder: Path, out: Path, *, shard_bytes: int = SHARD_BYTES) -> Converted:
    """Write a checkpoint in the layout of the hub (or any other that we load) as the original release has it.

    A checkpoint that came from the original gets its own small files back as they were, and the rows of its
    vocabulary that the conversion had added are cut off again.

    Raises:
        CheckpointError: as `original_to_hub`.
    """
    refuse_folder(folder)
    config = LlavaNextVideoConfig.from_pretrained(folder)
    kept = folder / KEPT
    stored = hub_weights(folder)
    refuse_unfit(str(folder), stored, config)
    notes = []
    if kept.is_dir():
        rows = read_release(kept).text["vocab_size"]
        if rows < config.text_config.vocab_size:
            stored |= {name: stored[name].with_rows(rows) for name in VOCABULARY if name in stored}
            notes.append(f"{config.text_config.vocab_size - rows} rows of the vocabulary cut off again")
    weights = {}
    for name, weight in stored.items():
        original = to_original(name)
        if original is None:
            raise CheckpointError(f"{folder} has {name}, which the original release has no place for")
        weights[original] = weight
    with new_folder(out, size_bytes=total_bytes(weights)) as partial:
        write_weights(partial, weights, shard_bytes=shard_bytes)
        if kept.is_dir():
            _copy_small_files(kept, partial)
        else:
            write_release(partial, config, str(next(iter(weights.values())).dtype).removeprefix("torch."))
            load_tokenizer(folder).save_pretrained(partial)
    return Converted(tensors=len(weights), size_bytes=folder_bytes(out), notes=tuple(notes))


def _named_as_on_hub(folder: Path) -> dict[str, Weight]:
    """The weights of the original release, renamed; buffers that are recomputed are left out."""
    renamed, strange = {}, []
    for name, weight in read_weights(folder).items():
        if RECOMPUTED.search(name):
            continue
        hub = to_hub(name)
        if hub is None:
            strange.append(name)
        else:
            renamed[hub] = weight
    if strange:
        raise CheckpointError(
            f"{folder} has weights that LLaVA-NeXT-Video has no place for: {', '.join(sorted(strange)[:5])}"
        )
    return renamed


def _clip_settings(release: Release, known: Published | None, wishes: Wishes) -> dict[str, Any]:
    """How frames become visual tokens: as wished, else as config.json says, else as published."""
    settings = {}
    for name in ("video_newline", "pool_before_projector", "spatial_pool_mode", "spatial_pool_stride"):
        said = [getattr(source, name) for source in (wishes, release, known) if source is not None]
        values = [value for value in said if value is not None]
        if not values:
            raise ConfigError(f"{release.folder}: nobody says {name}, and no published checkpoint is like it")
        settings[name] = values[0]
    return settings


def _copy_small_files(source: Path, target: Path) -> None:
    """Copy what is neither weights nor their index."""
    target.mkdir(exist_ok=True)
    for pattern in _SMALL_FILES:
        for path in source.glob(pattern):
            if path.is_file() and not path.name.endswith(".index.json"):
                shutil.copyfile(path, target / path.name)
