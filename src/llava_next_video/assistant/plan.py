"""What a question needs and what would fit, told before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Literal

from llava_next_video.assistant.answers import Prompt
from llava_next_video.assistant.loading import found_checkpoint
from llava_next_video.media import Clip
from llava_next_video.model import LlavaNextVideoConfig, context_limit, with_rope_factor
from llava_next_video.model.checkpoint import SMALL
from llava_next_video.model.configuration import head_width
from llava_next_video.model.context import (
    chosen_rope,
    rope_factor_for,
    rope_factor_of,
    rope_kind_of,
    with_rope,
)
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.processing.budget import most_frames

BYTES_PER_NUMBER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MediumPlan:
    """One medium of a question; `frames` is None for a picture."""

    name: str
    kind: Literal["image", "video"]
    frames: int | None
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a question needs, and what there is.

    Attributes:
        prompt_tokens: Tokens of the prompt, visual tokens included.
        new_tokens: Tokens of the answer, at most.
        context: Tokens that fit with `rope_factor`.
        rope_kind: How positions are scaled, in transformers' names; `default` if they are not.
        rope_factor: How far the context is stretched: as was asked, as far as the question needs (`auto`), or
            as the checkpoint says.
        rope_factor_needed: The least factor (in halves) that fits; `rope_factor` where that does.
        key_value_bytes: Memory for keys and values in 16 bits; in 32 bits it is twice that.
        frames_that_fit: The most frames a clip with `rope_factor`, laid out as asked; None without a clip.
    """

    media: tuple[MediumPlan, ...]
    prompt_tokens: int
    visual_tokens: int
    new_tokens: int
    context: int
    rope_kind: str
    rope_factor: float
    rope_factor_needed: float
    key_value_bytes: int
    frames_that_fit: int | None

    @property
    def tokens(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt_tokens + self.new_tokens

    @property
    def fits(self) -> bool:
        """Whether prompt and answer fit the context."""
        return self.tokens <= self.context


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """The processor and the config of a checkpoint, without its weights."""

    processor: LlavaNextVideoProcessor
    config: LlavaNextVideoConfig

    @classmethod
    def load(cls, name: str | PathLike[str] | None = None, *, rope_factor: float | None = None) -> Planner:
        """For a checkpoint folder or hub name, as `VideoAssistant.load` takes them.

        Raises:
            CheckpointError: There is none.
            ConfigError: A factor below 1.
        """
        folder = found_checkpoint(name, SMALL)
        config = LlavaNextVideoConfig.from_pretrained(folder)
        if rope_factor is not None:
            config = with_rope_factor(config, rope_factor)
        return cls(processor=LlavaNextVideoProcessor.from_pretrained(folder), config=config)

    def plan(self, prompt: Prompt, *, new_tokens: int) -> Plan:
        """The plan of a prompt that a `Reader` with the same processor has read.

        Raises:
            ConfigError: The checkpoint's positions cannot be scaled as the prompt asks.
        """
        text = self.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = head_width(text)
        tokens = len(prompt.inputs.ids) + new_tokens
        clips = [seen for seen in prompt.seen if isinstance(seen, Clip)]
        of_clips = sum(medium.tokens for medium in prompt.inputs.media if medium.kind == "video")
        rope = chosen_rope(self.config, prompt.inputs.rope, tokens)
        config = self.config if rope is None else with_rope(self.config, rope)
        context = context_limit(config)
        room = context - (tokens - of_clips)
        layouts = {medium.layout for medium in prompt.inputs.media if medium.kind == "video"}
        layout = next(iter(layouts), None)
        return Plan(
            media=tuple(
                MediumPlan(
                    name=seen.name,
                    kind=medium.kind,
                    frames=len(seen.frames) if isinstance(seen, Clip) else None,
                    tokens=medium.tokens,
                )
                for seen, medium in zip(prompt.seen, prompt.inputs.media, strict=True)
            ),
            prompt_tokens=len(prompt.inputs.ids),
            visual_tokens=prompt.inputs.visual_tokens,
            new_tokens=new_tokens,
            context=context,
            rope_kind=rope_kind_of(config),
            rope_factor=rope_factor_of(config),
            rope_factor_needed=rope_factor_for(tokens, config),
            key_value_bytes=2 * text.num_hidden_layers * heads * width * BYTES_PER_NUMBER * tokens,
            frames_that_fit=most_frames(clips, room, self.processor, layout) if clips else None,
        )
