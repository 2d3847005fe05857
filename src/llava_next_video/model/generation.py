"""The network with its language head: what users load."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, GenerationConfig, GenerationMixin, PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from llava_next_video.errors import PromptError
from llava_next_video.model.configuration import LlavaNextVideoConfig, adopted
from llava_next_video.model.context import context_limit, refuse_too_long
from llava_next_video.model.modeling import Encoded, Layers, LlavaNextVideoModel, Sizes
from llava_next_video.model.outputs import LlavaNextVideoCausalLMOutputWithPast
from llava_next_video.model.pixels import Pixels
from llava_next_video.model.placement import to_left_padding, written_length
from llava_next_video.model.pretrained import LlavaNextVideoPreTrainedModel, accept_every_layout

logger = logging.get_logger(__name__)


class LlavaNextVideoForConditionalGeneration(LlavaNextVideoPreTrainedModel, GenerationMixin):
    """LLaVA-NeXT-Video: ids and pixels in, logits or generated ids out."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: PreTrainedConfig) -> None:
        config = adopted(config)
        super().__init__(config)
        self.model = LlavaNextVideoModel(config)
        text = config.text_config
        self.lm_head: nn.Module = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.register_load_state_dict_pre_hook(accept_every_layout)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table of token embeddings in place."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language head."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Put another language head in place."""
        self.lm_head = new_embeddings

    def get_image_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Visual tokens of images: `LlavaNextVideoModel.get_image_features`."""
        return self.model.get_image_features(*args, **kwargs)

    def get_video_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Visual tokens of clips: `LlavaNextVideoModel.get_video_features`."""
        return self.model.get_video_features(*args, **kwargs)

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
        labels: Int[Tensor, "batch length"] | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | int | Sequence[int] | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: Encoded | None = None,
        **kwargs: Any,
    ) -> LlavaNextVideoCausalLMOutputWithPast | tuple[Any, ...]:
        """Logits of the next token at each place.

        Args:
            input_ids: Prompts with one placeholder for each visual token.
            pixel_values: Tiles of the images (see `LlavaNextVideoModel.get_image_features`).
            pixel_values_videos: Frames of the clips (see `LlavaNextVideoModel.get_video_features`).
            image_sizes: Height and width in pixels of each original image.
            attention_mask: 1 for tokens, 0 for padding, which may stand on either side.
            position_ids: Positions; by default they follow the cache.
            past_key_values: A cache to continue.
            inputs_embeds: Embedded prompts in place of ids; places that hold the embedding of a placeholder
                are filled with visual tokens.
            vision_feature_layer: Another layer, or layers, than the config says.
            vision_feature_select_strategy: `default` leaves out the class token, `full` keeps every token.
            labels: Ids to predict, `config.ignore_index` where there is nothing to learn.
            use_cache: Return a cache.
            output_attentions: Return attention weights (eager attention only).
            output_hidden_states: Return the hidden states of all layers, or of those with these indices.
            return_dict: False gives a tuple of what is there.
            logits_to_keep: Logits for that many last places only (0: all), for these places, or where a mask
                (batch x length) is true: one row of logits after the other, without the batch axis.
            mm_encoder_outputs: In place of pixels: what `get_image_features` returned, under `image`, and
                `get_video_features`, under `video`.
            kwargs: For the language model and the loss.

        Raises:
            PromptError: placeholders and media do not match.
            CapacityError: the prompt is longer than the context.
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError("labels need the logits of every place; leave out logits_to_keep")
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            image_sizes=image_sizes,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if isinstance(logits_to_keep, Tensor) and logits_to_keep.dim() == 2:
            hidden = hidden[logits_to_keep]
        elif isinstance(logits_to_keep, Tensor):
            hidden = hidden[:, logits_to_keep]
        else:
            hidden = hidden[:, slice(-logits_to_keep or None, None)]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                ignore_index=self.config.ignore_index,
                **kwargs,
            )
        result = LlavaNextVideoCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            video_hidden_states=outputs.video_hidden_states,
        )
        as_record = self.config.return_dict if return_dict is None else return_dict
        return result if as_record else result.to_tuple()

    @torch.no_grad()
    def generate(
        self,
        inputs: Int[Tensor, "batch length"] | None = None,
        generation_config: GenerationConfig | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Generate: `GenerationMixin.generate`, with prompts padded on either side.

        Rows that are padded at their end are moved to the right, so the prompt in the result is padded at its
        start. Media are checked and encoded once, before the first token. Where the answer would leave the
        context, it ends there, and a warning says so. A `max_length` that the visual tokens alone reach
        counts each medium as one token, as it did when processors did not repeat placeholders.

        Raises:
            PromptError: placeholders and media do not match.
            CapacityError: the prompt fills the context.
        """
        if inputs is not None:
            if kwargs.get("input_ids") is not None:
                raise ValueError("give the prompt once: as the first argument or as input_ids")
            kwargs["input_ids"] = inputs
        past = kwargs.get("past_key_values")
        starts = past is None or not int(past.get_seq_length())
        self._pad_left(kwargs, generation_config or self.generation_config, starts=starts)
        if (encoded := kwargs.get("mm_encoder_outputs")) is not None:
            # Beams repeat the features inside the outputs they are given; a caller may use his again.
            kwargs["mm_encoder_outputs"] = {kind: copy.copy(output) for kind, output in encoded.items()}
        elif starts:
            self._refuse_mismatch(kwargs)
        if starts:
            self._count_media_once(kwargs)
        generation_config = self._stay_in_context(kwargs, generation_config)
        return super().generate(None, generation_config, *args, **kwargs)

    def _count_media_once(self, inputs: dict[str, Any]) -> None:
        ids, most = inputs.get("input_ids"), inputs.get("max_length")
        if ids is None or most is None or most > ids.shape[1]:
            return
        inputs["max_length"] = most + ids.shape[1] - written_length(ids, self.config)

    def _refuse_mismatch(self, inputs: Mapping[str, Any]) -> None:
        ids, embeddings = inputs.get("input_ids"), inputs.get("inputs_embeds")
        if ids is None and embeddings is None:
            return
        media = {name: inputs.get(name) for name in ("pixel_values", "image_sizes", "pixel_values_videos")}
        self.model.refuse_mismatch(ids if embeddings is None else None, embeddings, **media)

    def _pad_left(self, inputs: dict[str, Any], settings: GenerationConfig, *, starts: bool) -> None:
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if mask is None and ids is not None and starts:
            pad = inputs.get("pad_token_id", settings.pad_token_id)
            ends = inputs.get("eos_token_id", settings.eos_token_id)
            if pad is not None and pad not in (ends if isinstance(ends, list) else [ends]):
                mask = inputs["attention_mask"] = (ids != pad).long()
        if mask is None or mask.dim() != 2:
            return
        order = to_left_padding(mask)
        if order is None:
            return
        if not starts:
            raise PromptError("rows padded at their end cannot continue a cache; pad their start")
        for name in ("input_ids", "inputs_embeds", "attention_mask", "position_ids"):
            value = inputs.get(name)
            if value is not None and value.shape[:2] == order.shape:
                where = order.to(value.device)
                where = where if value.dim() == 2 else where[..., None].expand_as(value)
                inputs[name] = value.gather(1, where)

    def _stay_in_context(
        self, inputs: dict[str, Any], generation_config: GenerationConfig | None
    ) -> GenerationConfig | None:
        sequence = inputs.get("inputs_embeds") if inputs.get("input_ids") is None else inputs["input_ids"]
        if sequence is None:
            return generation_config
        mask, length = inputs.get("attention_mask"), sequence.shape[1]
        prompt = length if mask is None or mask.dim() != 2 else int(mask.sum(dim=1).max())
        refuse_too_long(prompt + 1, self.config)
        room = context_limit(self.config) - prompt
        settings = generation_config or self.generation_config
        wanted = {"max_new_tokens": room, "max_length": room + length}
        for name, most in wanted.items():
            asked = inputs.get(name) or getattr(settings, name)
            if asked is None or asked <= most:
                continue
            logger.warning_once(
                f"{name}={asked} leaves the context after a prompt of {prompt} tokens; the answer ends after "
                f"at most {room} tokens"
            )
            if generation_config is None:
                inputs[name] = most
            else:
                generation_config = copy.deepcopy(generation_config)
                inputs.pop(name, None)
                setattr(generation_config, name, most)
        return generation_config


AutoModelForImageTextToText.register(
    LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration, exist_ok=True
)
