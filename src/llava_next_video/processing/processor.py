"""Text, pictures and clips to ids and pixels, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from transformers import BatchFeature, PreTrainedTokenizerBase

from llava_next_video.errors import ConfigError
from llava_next_video.geometry import NewlineMode, PoolMode
from llava_next_video.inputs import ModelInputs
from llava_next_video.long_video import ClipLayout, SlowFast
from llava_next_video.media import Clip, Picture
from llava_next_video.messages import Turn, read_messages
from llava_next_video.processing.batch import Batching
from llava_next_video.processing.call import CallOptions, read_call, refuse_swapped
from llava_next_video.processing.chat import Rendered, is_batch, pick_template, render, sources
from llava_next_video.processing.counting import Counting
from llava_next_video.processing.image import LlavaNextImageProcessor
from llava_next_video.processing.loading import OWN, load_parts, save_parts, settings_to_save
from llava_next_video.processing.prompt import find_placeholders
from llava_next_video.processing.video import LlavaNextVideoImageProcessor

Media = Sequence[Clip | Picture]


class LlavaNextVideoProcessor:
    """Joins a picture processor, a clip processor and a tokenizer.

    Args:
        video_processor: Turns clips into pixels.
        image_processor: Turns pictures into tiles.
        tokenizer: Turns text into ids; has `<video>` and `<image>` as tokens.
        chat_template: A Jinja template, or several by name; the tokenizer's own if None.
        patch_size: Pixels of a side of the vision tower's patches.
        vision_feature_select_strategy: Kept for the files; visual tokens are counted as the model packs them.
        num_additional_image_tokens: Likewise.
        spatial_pool_stride: Of the pooling of frames, with `spatial_pool_mode`, as in the model's config.
        video_newline: Where newline tokens stand in clips, as in the model's config.
        image_tile_limit: Tiles whose patches a picture keeps at most, as in the model's config.
        add_faster_video: Whether clips are slow-fast, with `faster_token_stride`, as in the model's config.
    """

    text_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(
        self,
        video_processor: LlavaNextVideoImageProcessor | None = None,
        image_processor: LlavaNextImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | dict[str, str] | None = None,
        patch_size: int | None = None,
        vision_feature_select_strategy: str | None = None,
        video_token: str = "<video>",
        image_token: str = "<image>",
        num_additional_image_tokens: int = 0,
        *,
        spatial_pool_stride: int = 2,
        spatial_pool_mode: PoolMode = "average",
        video_newline: NewlineMode = "no_token",
        image_tile_limit: int | None = None,
        add_faster_video: bool = False,
        faster_token_stride: int = 10,
    ) -> None:
        if tokenizer is None:
            raise ConfigError("LlavaNextVideoProcessor needs a tokenizer; load a folder with from_pretrained")
        self.video_processor = video_processor or LlavaNextVideoImageProcessor()
        self.image_processor = image_processor or LlavaNextImageProcessor()
        self.tokenizer = tokenizer
        self.chat_template = chat_template or tokenizer.chat_template
        self.patch_size = patch_size
        self.vision_feature_select_strategy = vision_feature_select_strategy
        self.num_additional_image_tokens = num_additional_image_tokens
        self.spatial_pool_stride = spatial_pool_stride
        self.spatial_pool_mode = spatial_pool_mode
        self.video_newline = video_newline
        self.image_tile_limit = image_tile_limit
        self.add_faster_video = add_faster_video
        self.faster_token_stride = faster_token_stride
        self.image_token = getattr(tokenizer, "image_token", None) or image_token
        self.video_token = getattr(tokenizer, "video_token", None) or video_token
        self._placeholders = find_placeholders(
            tokenizer, {"image": self.image_token, "video": self.video_token}
        )

    @property
    def model_input_names(self) -> list[str]:
        """What a call may give, by name."""
        return [
            *self.text_input_names,
            *self.image_processor.model_input_names,
            *self.video_processor.model_input_names,
        ]

    @property
    def image_token_id(self) -> int:
        """The id that stands for a picture, by the tokenizer."""
        return self._placeholders.ids["image"]

    @property
    def video_token_id(self) -> int:
        """The id that stands for a clip, by the tokenizer."""
        return self._placeholders.ids["video"]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: object
    ) -> LlavaNextVideoProcessor:
        """The processor of a checkpoint folder of any era, or of a checkpoint of the hub.

        `kwargs` are the hub's (`revision`, `token`, `cache_dir`, `local_files_only`, ...) or override the
        settings of the processor (`patch_size`, `chat_template`, ...) and `padding_side` of its tokenizer.

        Raises:
            CheckpointError: The folder or name does not exist, or a file of it cannot be read.
            ConfigError: An unknown keyword, or files that contradict each other.
        """
        return cls(**load_parts(pretrained_model_name_or_path, kwargs))  # type: ignore[arg-type]

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> list[str]:
        """Write the processor as transformers 5 does: one nested JSON, the chat template, the tokenizer."""
        return save_parts(save_directory, self.to_dict(), self.chat_template, self.tokenizer)

    def to_dict(self) -> dict[str, object]:
        """The settings by name, as they are saved; what is as usual in the family is left out."""
        own = {name: getattr(self, name) for name in OWN}
        return settings_to_save(own, self.image_processor, self.video_processor)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True)}"

    @property
    def counting(self) -> Counting:
        """How visual tokens are counted."""
        return Counting(
            patch=self.patch_size,
            stride=self.spatial_pool_stride,
            pooling=self.spatial_pool_mode,
            newline=self.video_newline,
            tile_limit=self.image_tile_limit,
            slow_fast=SlowFast(every=self.faster_token_stride) if self.add_faster_video else None,
            frame_token=self.add_faster_video,
        )

    def __call__(
        self,
        text: object = None,
        images: object = None,
        videos: object = None,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        return_tensors: object = "pt",
        **kwargs: object,
    ) -> BatchFeature:
        """Texts and their media as model inputs.

        Each `<image>` and `<video>` of the texts stands for the next picture or clip and is repeated as
        often as it has visual tokens. Gives `input_ids` and `attention_mask`; `pixel_values` and
        `image_sizes` with pictures; `pixel_values_videos` with clips: one tensor, or a list of one tensor a
        clip where clips differ in their number of frames.

        Args:
            text: One text or several.
            images: What `LlavaNextImageProcessor` takes, for all texts in order.
            videos: What `LlavaNextVideoImageProcessor` takes, for all texts in order.
            padding: True or `longest`, `max_length`, or False.
            truncation: Whether words are cut at `max_length`; visual tokens never are.
            return_tensors: `pt`, `np` or None for lists.
            kwargs: `padding_side`, `add_special_tokens`, `pad_to_multiple_of`, and the settings of both
                processors (`num_frames`, `fps`, `size`, ...), also in `text_kwargs`, `images_kwargs` and
                `videos_kwargs`.

        Raises:
            PromptError: Arguments in another order, or placeholders and media that do not agree.
            CapacityError: Truncation would cut visual tokens.
            ConfigError: An unknown keyword.
        """
        refuse_swapped(text, images, videos, (self.image_token, self.video_token))
        named = {
            "padding": padding,
            "truncation": truncation,
            "max_length": max_length,
            "return_tensors": return_tensors,
        }
        call = read_call({**named, **kwargs})
        texts = [text] if isinstance(text, str) else cast("Sequence[str]", text or ())
        return self._batching.batch([Rendered(text=one) for one in texts], images, videos, call)

    @property
    def _batching(self) -> Batching:
        return Batching(
            pictures=self.image_processor,
            clips=self.video_processor,
            tokenizer=self.tokenizer,
            placeholders=self._placeholders,
            counting=self.counting,
        )

    def apply_chat_template(
        self,
        conversation: object,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: object = "auto",
        processor_kwargs: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> str | list[str] | BatchFeature | object:
        """A conversation, or a list of them, as prompts or (`tokenize=True`) as ids and pixels.

        Messages are spelled as Hugging Face, OpenAI or LLaVA do; media in them are paths, URLs, bytes,
        arrays or Pillow pictures. Clips in files are looked at in 8 moments, unless `num_frames`, `fps` or
        `sampler` say otherwise, here or in `processor_kwargs`.

        Args:
            conversation: The messages.
            chat_template: A template, or the name of one: the processor's or one of the package.
            add_generation_prompt: End with the beginning of the assistant's next turn.
            continue_final_message: Leave the last turn open, for the assistant to go on with it.
            return_assistant_tokens_mask: With `tokenize` and `return_dict`, also give `assistant_masks`: 1
                where the assistant spoke.
            tokenize: Give ids (and with `return_dict` everything that the model takes).
            return_tensors: `pt` (`auto`), `np`, or None for lists.
            processor_kwargs: What `__call__` takes.
            kwargs: The same, or variables of the template.

        Raises:
            PromptError: Messages, template and media that do not agree.
        """
        batched = is_batch(conversation)
        conversations = cast("Sequence[object]", conversation) if batched else [conversation]
        template = pick_template(chat_template, self.chat_template)
        call, variables = CallOptions.split(template, {**(processor_kwargs or {}), **kwargs})
        turns = [read_messages(one) for one in conversations]
        prompts = [
            render(
                template,
                one,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                mark_spoken=return_assistant_tokens_mask,
                variables={**self.tokenizer.special_tokens_map, **variables},
            )
            for one in turns
        ]
        if not tokenize:
            return [one.text for one in prompts] if batched else prompts[0].text
        images, videos = call.pop("images", None), call.pop("videos", None)
        if return_tensors != "auto":
            call["return_tensors"] = return_tensors
        options = read_call(call, mark_spoken=return_assistant_tokens_mask, from_template=True)
        images, videos = sources(turns, images=images, videos=videos)
        inputs = self._batching.batch(prompts, images, videos, options)
        return inputs if return_dict else inputs["input_ids"]

    def prepare(
        self,
        turns: Sequence[Turn],
        media: Media,
        *,
        add_generation_prompt: bool = True,
        layout: ClipLayout | None = None,
    ) -> ModelInputs:
        """One conversation whose media were read, as ids with promises of pixels.

        `media` are in the order in which the turns name them. The pixels are made when `Medium.load` asks.
        `layout` says how clips become tokens, where that is not as the checkpoint does.

        Raises:
            PromptError: Turns and media that do not agree.
        """
        return self._prepared(
            turns, media, add_generation_prompt=add_generation_prompt, mark=False, layout=layout
        )[0]

    def prepare_spoken(self, turns: Sequence[Turn], media: Media) -> tuple[ModelInputs, tuple[bool, ...]]:
        """Like `prepare` for a finished conversation, and for each id whether the assistant said it.

        Raises:
            PromptError: Turns and media that do not agree, or a template that does not mark what was said.
        """
        return self._prepared(turns, media, add_generation_prompt=False, mark=True)

    def _prepared(
        self,
        turns: Sequence[Turn],
        media: Media,
        *,
        add_generation_prompt: bool,
        mark: bool,
        layout: ClipLayout | None = None,
    ) -> tuple[ModelInputs, tuple[bool, ...]]:
        one = render(
            pick_template(None, self.chat_template),
            turns,
            add_generation_prompt=add_generation_prompt,
            mark_spoken=mark,
            variables=self.tokenizer.special_tokens_map,
        )
        return self._batching.promised(one, media, layout)

    def decode(self, *args: object, **kwargs: object) -> str:
        """The tokenizer's `decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: object, **kwargs: object) -> list[str]:
        """The tokenizer's `batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def post_process_image_text_to_text(
        self, generated_outputs: object, skip_special_tokens: bool = True, **kwargs: object
    ) -> list[str]:
        """The texts of generated ids, under the name that pipelines call."""
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)
