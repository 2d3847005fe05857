"""The shape of a model, and which settings work together.

The class extends the one of transformers, so that config.json is read and written by both.
"""

import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.models.llava_next_video import LlavaNextVideoConfig as HubConfig

from llava_next_video.errors import ConfigError
from llava_next_video.geometry import (
    ImageLayout,
    NewlineMode,
    PoolMode,
    VideoLayout,
    image_layout,
    video_layout,
)
from llava_next_video.long_video import ClipLayout, SlowFast
from llava_next_video.model.checkpoint import IMAGE_MODEL_TYPE
from llava_next_video.model.context import warn_of_stray_rope_keys
from llava_next_video.size import Size

SelectStrategy = Literal["default", "full"]

CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Vision towers that can be used, and how many tokens each puts before its patches."""

UNTOLD = -1
"""The `video_token_index` of a LLaVA-NeXT checkpoint for pictures, until its processor gives an id."""


def head_width(text: Any) -> int:
    """Features of one attention head of a text config.

    >>> from transformers import LlamaConfig
    >>> head_width(LlamaConfig(hidden_size=4096, num_attention_heads=32))
    128
    """
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


class LlavaNextVideoConfig(HubConfig):
    """Everything that decides the shape of the network; the defaults are LLaVA-NeXT-Video-7B.

    The arguments, their order and their defaults are those of the release; these are added:

    Args:
        spatial_pool_mode: Also `bilinear`.
        spatial_pool_out_channels: Width after `conv` pooling; the width of the vision tower by default.
        video_newline: Where `image_newline` stands in a clip: `no_token` (April 2024), `one_token`, `frame`
            or `grid` (LLaVA-Video). The key `video_newline_mode` is read too.
        add_faster_video: Slow-fast clips, each frame of which a learned `faster_token` ends.
        faster_token_stride: Which frames of these are slow: each so-many-th, from the first on.
        pool_before_projector: Pool frames, then project them (April 2024), or the other way round
            (LLaVA-NeXT since July 2024). The projector bends, so the two differ.
        image_tile_limit: Tiles whose patches an image keeps at most; larger ones are shrunk (LLaVA-Video:
            9). None: no limit.
        vision_chunk: Tiles and frames that pass the vision tower at once, which bounds its memory.

    Raises:
        ConfigError: a value of the wrong type, or settings that cannot work together.
    """

    spatial_pool_out_channels: int | None = None
    ignore_index: int = -100
    video_newline: NewlineMode = "no_token"
    add_faster_video: bool = False
    faster_token_stride: int = 10
    pool_before_projector: bool = True
    image_tile_limit: int | None = None
    vision_chunk: int = 32

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        ignore_index: int = -100,
        image_token_index: int = 32001,
        projector_hidden_act: str = "gelu",
        vision_feature_select_strategy: str = "default",
        vision_feature_layer: Any = -2,
        image_grid_pinpoints: Sequence[Sequence[int]] | None = None,
        tie_word_embeddings: bool = False,
        video_token_index: int = 32000,
        spatial_pool_mode: str = "average",
        spatial_pool_stride: int = 2,
        *,
        spatial_pool_out_channels: int | None = None,
        video_newline: str | None = None,
        add_faster_video: bool = False,
        faster_token_stride: int = 10,
        pool_before_projector: bool = True,
        image_tile_limit: int | None = None,
        vision_chunk: int = 32,
        **kwargs: Any,
    ) -> None:
        spelled_otherwise = kwargs.pop("video_newline_mode", None)
        if isinstance(vision_feature_layer, tuple):
            vision_feature_layer = list(vision_feature_layer)
        try:
            super().__init__(
                vision_config=vision_config,
                text_config=text_config,
                image_token_index=image_token_index,
                projector_hidden_act=projector_hidden_act,
                vision_feature_select_strategy=vision_feature_select_strategy,
                vision_feature_layer=vision_feature_layer,
                image_grid_pinpoints=image_grid_pinpoints and [list(pair) for pair in image_grid_pinpoints],
                tie_word_embeddings=tie_word_embeddings,
                video_token_index=video_token_index,
                spatial_pool_mode=spatial_pool_mode,
                spatial_pool_stride=spatial_pool_stride,
                ignore_index=ignore_index,
                spatial_pool_out_channels=spatial_pool_out_channels,
                video_newline=video_newline or spelled_otherwise or "no_token",
                add_faster_video=add_faster_video,
                faster_token_stride=faster_token_stride,
                pool_before_projector=pool_before_projector,
                image_tile_limit=image_tile_limit,
                vision_chunk=vision_chunk,
                **kwargs,
            )
        except (StrictDataclassError, ValueError) as error:
            raise ConfigError(" ".join(str(error).split())) from error
        if self.spatial_pool_out_channels is None:
            self.spatial_pool_out_channels = self.vision_config.hidden_size
        check(self)
        warn_of_stray_rope_keys(self.text_config)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of a checkpoint by name; those of a LLaVA-NeXT checkpoint for pictures will do."""
        values, others = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if values.get("model_type") == IMAGE_MODEL_TYPE:
            values = {"video_token_index": UNTOLD} | values | {"model_type": cls.model_type}
        return values, others

    @property
    def patch_grid(self) -> Size:
        """Rows and columns of patches in a tile or an unpooled frame."""
        side = self.vision_config.image_size // self.vision_config.patch_size
        return Size(side, side)

    def image_layout(self, image: Size) -> ImageLayout:
        """How an image of that many pixels is cut and ordered."""
        return image_layout(
            image,
            [Size(*pair) for pair in self.image_grid_pinpoints],
            tile=self.vision_config.image_size,
            patch=self.vision_config.patch_size,
            tile_limit=self.image_tile_limit,
        )

    @property
    def slow_fast(self) -> SlowFast | None:
        """Which frames of clips are slow, if not all are."""
        return SlowFast(every=self.faster_token_stride) if self.add_faster_video else None

    def video_layout(self, frames: int, wish: ClipLayout | None = None) -> VideoLayout:
        """How a clip of that many frames is ordered; a wish comes before what the checkpoint does."""
        return video_layout(
            frames,
            tile=self.vision_config.image_size,
            patch=self.vision_config.patch_size,
            stride=self.spatial_pool_stride,
            mode=self.spatial_pool_mode,
            newline=self.video_newline,
            slow_fast=self.slow_fast,
            frame_token=self.add_faster_video,
            wish=wish,
        )


def adopted(config: PreTrainedConfig) -> LlavaNextVideoConfig:
    """The config itself, or the same settings in our class when it comes from transformers' own."""
    if isinstance(config, LlavaNextVideoConfig):
        return config
    if not isinstance(config, HubConfig):
        raise ConfigError(f"expected a LlavaNextVideoConfig, got {type(config).__name__}")
    ours = LlavaNextVideoConfig(**config.to_dict())
    for mine, theirs in (
        (ours, config),
        (ours.text_config, config.text_config),
        (ours.vision_config, config.vision_config),
    ):
        mine._attn_implementation = theirs._attn_implementation
    return ours


def check(config: LlavaNextVideoConfig) -> None:
    """Refuse settings that cannot work together.

    Raises:
        ConfigError: what was given, what would work.
    """
    kind = config.vision_config.model_type
    if kind not in CLASS_TOKENS:
        raise ConfigError(f"vision_config is a {kind}; supported are {', '.join(CLASS_TOKENS)}")
    _check_choice("spatial_pool_mode", config.spatial_pool_mode, get_args(PoolMode))
    _check_choice("video_newline", config.video_newline, get_args(NewlineMode))
    if config.vision_chunk < 1:
        raise ConfigError(f"vision_chunk is {config.vision_chunk}; at least 1 frame must pass at once")
    if config.image_tile_limit is not None and config.image_tile_limit < 1:
        raise ConfigError(f"image_tile_limit is {config.image_tile_limit}; an image keeps at least 1 tile")
    if config.image_token_index == config.video_token_index:
        raise ConfigError(f"image_token_index and video_token_index are both {config.image_token_index}")
    if getattr(config, "use_image_newline_parameter", True) is False:
        raise ConfigError("use_image_newline_parameter false is not supported: image rows end with a newline")
    config.video_layout(1)
    check_selection(config, config.vision_feature_layer, config.vision_feature_select_strategy)
    if config.spatial_pool_mode == "conv":
        _check_convolution(config)


def check_selection(
    config: LlavaNextVideoConfig, layers: int | Sequence[int], strategy: str
) -> tuple[list[int], bool]:
    """Indices of the hidden states to use, counted from the embeddings, and whether a class token goes.

    Raises:
        ConfigError: no such layer, or a strategy that leaves something other than the patches.
    """
    depth = config.vision_config.num_hidden_layers
    wanted = [layers] if isinstance(layers, int) else list(layers)
    if not wanted or any(not -depth - 1 <= layer <= depth for layer in wanted):
        raise ConfigError(
            f"vision_feature_layer {layers} is outside {-depth - 1}..{depth}, the layers of the vision tower"
        )
    made_for = 1 if isinstance(config.vision_feature_layer, int) else len(config.vision_feature_layer)
    if len(wanted) != made_for:
        raise ConfigError(f"vision_feature_layer {layers}: the projector was made for {made_for} layer(s)")
    _check_choice("vision_feature_select_strategy", strategy, get_args(SelectStrategy))
    kind, drops_class_token = config.vision_config.model_type, strategy == "default"
    if drops_class_token != bool(CLASS_TOKENS[kind]):
        why = "it has no class token to leave out" if drops_class_token else "its class token is no patch"
        raise ConfigError(
            f"vision_feature_select_strategy {strategy!r} does not work with {kind}: {why}; "
            f"use {'full' if drops_class_token else 'default'!r}"
        )
    return [layer % (depth + 1) for layer in wanted], drops_class_token


def _check_convolution(config: LlavaNextVideoConfig) -> None:
    width = config.vision_config.hidden_size
    if not config.pool_before_projector:
        raise ConfigError("spatial_pool_mode 'conv' pools vision features; set pool_before_projector to true")
    if not isinstance(config.vision_feature_layer, int):
        raise ConfigError("spatial_pool_mode 'conv' takes one layer; make vision_feature_layer a number")
    if config.spatial_pool_out_channels != width:
        raise ConfigError(
            f"spatial_pool_out_channels is {config.spatial_pool_out_channels}; "
            f"the projector takes {width}, the width of the vision tower"
        )


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
