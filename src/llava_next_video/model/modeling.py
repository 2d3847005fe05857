"""The network without its language head.

What stands on either side of the connector is transformers'; what LLaVA-NeXT-Video is stands in `connector`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from llava_next_video.errors import ConfigError, PromptError
from llava_next_video.geometry import ImageLayout
from llava_next_video.inputs import MediumKind
from llava_next_video.long_video import ClipLayout
from llava_next_video.model.configuration import adopted, check, check_selection
from llava_next_video.model.connector import Pooler, Projector, lay_out_clips, pack_images, place
from llava_next_video.model.context import refuse_long_prompt
from llava_next_video.model.outputs import LlavaNextVideoModelOutputWithPast
from llava_next_video.model.pixels import Pixels, clip_list, refuse_size, tiles_in_a_row
from llava_next_video.model.placement import placeholders, refuse_mismatch
from llava_next_video.model.pretrained import LlavaNextVideoPreTrainedModel
from llava_next_video.model.tower import tower_features
from llava_next_video.size import Size

Layers = int | Sequence[int]
Sizes = Tensor | Sequence[Sequence[int]]
Encoded = Mapping[str, BaseModelOutputWithPooling]


class LlavaNextVideoModel(LlavaNextVideoPreTrainedModel):
    """The network without a language head."""

    def __init__(self, config: PreTrainedConfig) -> None:
        config = adopted(config)
        check(config)
        super().__init__(config)
        vision, text, layers = config.vision_config, config.text_config, config.vision_feature_layer
        width = vision.hidden_size * (1 if isinstance(layers, int) else len(layers))
        self.vision_tower = AutoModel.from_config(vision)
        self.multi_modal_projector = Projector(
            width=width,
            out_width=text.hidden_size,
            activation=config.projector_hidden_act,
            bias=config.multimodal_projector_bias,
        )
        self.image_newline = nn.Parameter(torch.empty(text.hidden_size))
        self.register_parameter(
            "faster_token", nn.Parameter(torch.empty(text.hidden_size)) if config.add_faster_video else None
        )
        self.language_model = AutoModel.from_config(text)
        self.vision_resampler = Pooler(
            mode=config.spatial_pool_mode,
            stride=config.spatial_pool_stride,
            width=width,
            out_width=config.spatial_pool_out_channels,
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table of token embeddings in place."""
        self.language_model.set_input_embeddings(value)

    def get_image_features(
        self,
        pixel_values: Pixels,
        image_sizes: Sizes,
        vision_feature_layer: Layers | None = None,
        vision_feature_select_strategy: str | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Visual tokens of images.

        Args:
            pixel_values: images x tiles x channels x height x width, padded on the tile axis; all tiles in a
                row (4 axes); or one tensor of tiles per image.
            image_sizes: Height and width in pixels of each original image.
            vision_feature_layer: Another layer, or layers, than the config says.
            vision_feature_select_strategy: As in the config.
            return_dict: False gives a tuple.

        Returns:
            `pooler_output`: a list of tokens x width, one per image; `last_hidden_state`: the vision features
            that they were made of, tiles x patches x width.
        """
        layouts = self.image_layouts(image_sizes)
        tiles = tiles_in_a_row(pixel_values, layouts)
        features = self._vision_features(tiles, vision_feature_layer, vision_feature_select_strategy)
        tokens = pack_images(self.multi_modal_projector(features), layouts, self.image_newline)
        return self._returned(BaseModelOutputWithPooling(features, tokens), return_dict)

    def get_video_features(
        self,
        pixel_values_videos: Pixels,
        vision_feature_layer: Layers | None = None,
        vision_feature_select_strategy: str | None = None,
        return_dict: bool | None = None,
        *,
        clip_layouts: Sequence[ClipLayout | None] | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Visual tokens of clips.

        Args:
            pixel_values_videos: clips x frames x channels x height x width; one tensor of frames per clip,
                however many each has; or the frames of a single clip (4 axes).
            vision_feature_layer: Another layer, or layers, than the config says.
            vision_feature_select_strategy: As in the config.
            return_dict: False gives a tuple.
            clip_layouts: For each clip how it becomes tokens, where that is not as the config says.

        Returns:
            `pooler_output`: a list of tokens x width, one per clip; `last_hidden_state`: the vision features
            that they were made of, frames x patches x width.
        """
        clips = clip_list(pixel_values_videos)
        frames = clips[0] if len(clips) == 1 else torch.cat(clips)
        features = self._vision_features(frames, vision_feature_layer, vision_feature_select_strategy)
        wishes = [None] * len(clips) if clip_layouts is None else clip_layouts
        layouts = [
            self.config.video_layout(len(clip), wish) for clip, wish in zip(clips, wishes, strict=True)
        ]
        strides = [stride for layout in layouts for stride in layout.strides]
        grid, project = self.config.patch_grid, self.multi_modal_projector
        if self.config.pool_before_projector:
            rows = project(self.vision_resampler.rows(features, grid, strides))
        else:
            rows = self.vision_resampler.rows(project(features), grid, strides)
        tokens = lay_out_clips(rows, layouts, self.image_newline, self.faster_token)
        return self._returned(BaseModelOutputWithPooling(features, tokens), return_dict)

    def image_layouts(self, image_sizes: Sizes) -> list[ImageLayout]:
        """How each image is cut and ordered; sizes on a device are fetched in one go."""
        sizes = image_sizes.tolist() if isinstance(image_sizes, Tensor) else image_sizes
        return [self.config.image_layout(Size(int(height), int(width))) for height, width in sizes]

    def refuse_mismatch(
        self,
        input_ids: Int[Tensor, "batch length"] | None,
        inputs_embeds: Float[Tensor, "batch length width"] | None = None,
        *,
        pixel_values: Pixels | None = None,
        image_sizes: Sizes | None = None,
        pixel_values_videos: Pixels | None = None,
    ) -> None:
        """Raise unless each row of a prompt has the placeholders of whole media; computes no features.

        Raises:
            PromptError: with the tokens per medium.
        """
        tokens: dict[MediumKind, list[int]] = {"image": [], "video": []}
        if pixel_values is not None:
            if image_sizes is None:
                raise PromptError("pixel_values came without image_sizes; pass both, as the processor does")
            tokens["image"] = [layout.tokens for layout in self.image_layouts(image_sizes)]
        if pixel_values_videos is not None:
            clips = clip_list(pixel_values_videos)
            tokens["video"] = [self.config.video_layout(len(clip)).tokens for clip in clips]
        elif inputs_embeds is not None and not tokens["image"]:
            return
        marks = placeholders(self.config, self.get_input_embeddings(), input_ids, inputs_embeds)
        counts = torch.stack([mark.sum(dim=1) for mark in marks.values()]).tolist()
        for kind, in_rows in zip(marks, counts, strict=True):
            refuse_mismatch(kind, in_rows, tokens[kind])

    def forward(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        pixel_values: Pixels | None = None,
        pixel_values_videos: Pixels | None = None,
        image_sizes: Sizes | None = None,
        attention_mask: Tensor | Mapping[str, Any] | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Float[Tensor, "batch length width"] | None = None,
        vision_feature_layer: Layers | None = None,
        vision_feature_select_strategy: str | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | int | Sequence[int] | None = None,
        return_dict: bool | None = None,
        mm_encoder_outputs: Encoded | None = None,
        **kwargs: Any,
    ) -> LlavaNextVideoModelOutputWithPast | tuple[Any, ...]:
        """Hidden states of the last layer. The arguments are those of the network with a head.

        Raises:
            PromptError: placeholders and media do not match.
            CapacityError: the prompt is longer than the context.
        """
        has_pixels = pixel_values is not None or pixel_values_videos is not None
        if has_pixels and mm_encoder_outputs:
            raise ValueError("give pixels or mm_encoder_outputs, not both")
        sequence = input_ids if inputs_embeds is None else inputs_embeds
        if sequence is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if isinstance(image_sizes, Tensor):
            image_sizes = image_sizes.tolist()
        if not torch.compiler.is_compiling():
            length, past = sequence.shape[1], 0
            if past_key_values is not None and length > 1:
                past = int(past_key_values.get_seq_length())
            refuse_long_prompt(
                self.config, past + length, attention_mask=attention_mask, position_ids=position_ids
            )
            if has_pixels or (length > 1 and not past and mm_encoder_outputs is None):
                self.refuse_mismatch(
                    input_ids,
                    inputs_embeds,
                    pixel_values=pixel_values,
                    image_sizes=image_sizes,
                    pixel_values_videos=pixel_values_videos,
                )
        encoded = dict(mm_encoder_outputs or {})
        selection = (vision_feature_layer, vision_feature_select_strategy, True)
        if pixel_values is not None and image_sizes is not None:
            encoded["image"] = self.get_image_features(pixel_values, image_sizes, *selection)
        if pixel_values_videos is not None:
            encoded["video"] = self.get_video_features(pixel_values_videos, *selection)
        embeddings, visual = self._embedded(input_ids, inputs_embeds, encoded, counted=has_pixels)
        outputs = self.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            output_attentions=self._wants_attentions(output_attentions),
            output_hidden_states=(
                self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
            return_dict=True,
            **kwargs,
        )
        result = LlavaNextVideoModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=visual.get("image"),
            video_hidden_states=visual.get("video"),
        )
        return self._returned(result, return_dict)

    def _vision_features(
        self, pixels: Tensor, layers: Layers | None, strategy: str | None
    ) -> Float[Tensor, "tiles patches features"]:
        refuse_size(pixels, self.config.vision_config.image_size)
        wanted, drops_class_token = check_selection(
            self.config,
            self.config.vision_feature_layer if layers is None else layers,
            strategy or self.config.vision_feature_select_strategy,
        )
        return tower_features(
            self.vision_tower,
            pixels,
            layers=wanted,
            drops_class_token=drops_class_token,
            chunk=self.config.vision_chunk,
        )

    def _embedded(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, encoded: Encoded, *, counted: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        table = self.get_input_embeddings()
        embeddings = table(input_ids) if inputs_embeds is None else inputs_embeds
        visual: dict[str, Tensor] = {}
        if not any(output is not None for output in encoded.values()):
            return embeddings, visual
        for kind, where in placeholders(self.config, table, input_ids, inputs_embeds).items():
            if (output := encoded.get(kind)) is None:
                continue
            tokens = torch.cat([item.reshape(-1, item.shape[-1]) for item in output.pooler_output])
            if not counted and not torch.compiler.is_compiling():
                refuse_mismatch(kind, [int(where.sum())], [len(tokens)])
            visual[kind] = tokens.to(embeddings.device, embeddings.dtype)
            embeddings = place(embeddings, where, visual[kind])
        return embeddings, visual

    def _wants_attentions(self, asked: bool | None) -> bool:
        wanted = self.config.output_attentions if asked is None else asked
        kind = self.language_model.config._attn_implementation
        if wanted and kind != "eager":
            raise ConfigError(
                f"output_attentions needs weights that {kind} attention does not give; "
                "call model.set_attn_implementation('eager') first"
            )
        return wanted

    def _returned(self, output: Any, return_dict: bool | None) -> Any:
        as_record = self.config.return_dict if return_dict is None else return_dict
        return output if as_record else output.to_tuple()
