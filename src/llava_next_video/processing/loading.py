"""The parts of a processor, out of a folder and into one."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llava_next_video.errors import CheckpointError, ConfigError
from llava_next_video.processing.chat import with_clips
from llava_next_video.processing.folder import Json, ProcessorFiles, read_processor_files
from llava_next_video.processing.image import LlavaNextImageProcessor
from llava_next_video.processing.video import LlavaNextVideoImageProcessor

OWN = (
    "patch_size",
    "vision_feature_select_strategy",
    "num_additional_image_tokens",
    "image_token",
    "video_token",
    "spatial_pool_stride",
    "spatial_pool_mode",
    "video_newline",
    "image_tile_limit",
    "add_faster_video",
    "faster_token_stride",
)
USUAL: Mapping[str, object] = {
    "spatial_pool_stride": 2,
    "spatial_pool_mode": "average",
    "video_newline": "no_token",
    "add_faster_video": False,
    "faster_token_stride": 10,
}
"""Settings that transformers' files do not know, and what they are unless said otherwise."""

TOKENIZER = ("padding_side", "truncation_side", "use_fast")


def load_parts(name: str | os.PathLike[str], kwargs: Mapping[str, object]) -> dict[str, object]:
    """The keywords that make the processor of a checkpoint; `kwargs` come before the files.

    Where the processor's files are silent, config.json speaks. Where they contradict it, config.json is
    followed with one warning: the model packs features by it, so another count would not fit.

    Raises:
        CheckpointError: Something is missing or cannot be read.
        ConfigError: An unknown keyword.
    """
    hub, given = ProcessorFiles.split_hub_options(kwargs)
    known_keys = (*OWN, *TOKENIZER, "chat_template")
    for key in given:
        if key not in known_keys:
            raise ConfigError(f"from_pretrained has no keyword {key!r}; known: {', '.join(known_keys)}")
    files = read_processor_files(name, **hub)
    known = {key: files.processor[key] for key in OWN if files.processor.get(key) is not None}
    told = _of_config(files.config)
    disagreements = [
        f"{key} {known[key]!r} against {told[key]!r}"
        for key in told
        if key in known and known[key] != told[key]
    ]
    image = dict(files.image)
    pinpoints = files.config.get("image_grid_pinpoints")
    if pinpoints is not None and image.get("image_grid_pinpoints", pinpoints) != pinpoints:
        disagreements.append(f"image_grid_pinpoints {image['image_grid_pinpoints']} against {pinpoints}")
    if pinpoints is not None:
        image["image_grid_pinpoints"] = pinpoints
    if disagreements:
        warnings.warn(
            f"{os.fspath(name)}: the processor's files and config.json disagree, config.json is followed: "
            + "; ".join(disagreements),
            stacklevel=3,
        )
    options = {key: value for key, value in given.items() if key in TOKENIZER}
    tokenizer, template = load_tokenizer(name, **hub, **options), files.chat_template
    if files.config.get("model_type") == "llava_next":  # trained on pictures alone
        add_placeholders(tokenizer)
        template = with_clips(template) if isinstance(template, str) else None
    return {
        "video_processor": LlavaNextVideoImageProcessor.from_dict(files.video),
        "image_processor": LlavaNextImageProcessor.from_dict(image),
        "tokenizer": tokenizer,
        "chat_template": template,
        **known,
        **told,
        **{key: value for key, value in given.items() if key not in TOKENIZER},
    }


def settings_to_save(
    own: Mapping[str, object], image: LlavaNextImageProcessor, video: LlavaNextVideoImageProcessor
) -> dict[str, object]:
    """What stands in processor_config.json; own settings that are as usual in the family are left out."""
    unusual = {name: value for name, value in own.items() if value is not None and value != USUAL.get(name)}
    return {
        "processor_class": "LlavaNextVideoProcessor",
        "image_processor": image.to_dict(),
        "video_processor": video.to_dict(),
        **unusual,
    }


def save_parts(
    save_directory: str | os.PathLike[str],
    settings: Mapping[str, object],
    chat_template: str | Mapping[str, str] | None,
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    """Write settings, chat templates and tokenizer into a folder, which is made; gives the paths."""
    folder = Path(save_directory)
    folder.mkdir(parents=True, exist_ok=True)
    written = list(tokenizer.save_pretrained(folder))
    path = folder / "processor_config.json"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    written.append(str(path))
    templates = {"default": chat_template} if isinstance(chat_template, str) else chat_template or {}
    for name, template in templates.items():
        where = folder / "chat_template.jinja"
        if name != "default":
            where = folder / "additional_chat_templates" / f"{Path(name).name}.jinja"
            where.parent.mkdir(exist_ok=True)
        where.write_text(template, encoding="utf-8")
        written.append(str(where))
    return written


def load_tokenizer(name: str | os.PathLike[str], **options: object) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer.

    Raises:
        CheckpointError: It has none that can be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{os.fspath(name)}: its tokenizer cannot be loaded: {first}") from error


def add_placeholders(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer `<video>` and `<image>` as tokens, in that order, where it has them not.

    Source: transformers, `convert_llava_next_video_weights_to_hf.py`.
    """
    for text in ("<video>", "<image>"):
        tokenizer.add_tokens([AddedToken(text, special=True, normalized=False)], special_tokens=True)


def _of_config(config: Json) -> dict[str, object]:
    """What config.json says about the counting of visual tokens."""
    tower = config.get("vision_config")
    told = {
        "patch_size": tower.get("patch_size") if isinstance(tower, Mapping) else None,
        "vision_feature_select_strategy": config.get("vision_feature_select_strategy"),
        "spatial_pool_stride": config.get("spatial_pool_stride"),
        "spatial_pool_mode": config.get("spatial_pool_mode"),
        "video_newline": config.get("video_newline", config.get("video_newline_mode")),
        "image_tile_limit": config.get("image_tile_limit"),
        "add_faster_video": config.get("add_faster_video"),
        "faster_token_stride": config.get("faster_token_stride"),
    }
    return {key: value for key, value in told.items() if value is not None}
