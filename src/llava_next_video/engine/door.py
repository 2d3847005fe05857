"""Which requests may come in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from llava_next_video.engine.sampling_options import SamplingOptions
from llava_next_video.errors import CapacityError, PromptError, SamplingError
from llava_next_video.inputs import MediumKind, ModelInputs
from llava_next_video.long_video import RopeScaling
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.context import chosen_rope, rope_limit

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a request must fit: tokens of context and pages, the vocabulary, the placeholders.

    Attributes:
        config: Of the model, whose positions a request may stretch.
        context: Tokens of one request under the checkpoint's own scaling of positions.
        most: Tokens of one request under any scaling; None: as many as it makes room for.
        room: Tokens that the pages hold.
        vocabulary: Ids that the model has.
        placeholders: The ids that stand for media.
    """

    config: LlavaNextVideoConfig
    context: int
    most: int | None
    room: int
    vocabulary: int
    placeholders: Mapping[MediumKind, int]

    def admit(self, inputs: ModelInputs, options: SamplingOptions) -> RopeScaling | None:
        """How the positions of the request are scaled; raises unless it can be answered.

        Raises:
            CapacityError: it can never fit.
            ConfigError: its positions cannot be scaled so.
            PromptError: ids and media do not agree.
            SamplingError: an option names an id that the model does not have.
        """
        if not inputs.ids:
            raise PromptError("the prompt is empty; give at least one token")
        needed = len(inputs.ids) + options.max_new_tokens
        rope = chosen_rope(self.config, inputs.rope, needed)
        self._refuse_size(len(inputs.ids), options.max_new_tokens, self._limit(rope))
        beyond = [id for id in (*options.stop_token_ids, *options.logit_bias) if id >= self.vocabulary]
        if beyond:
            raise SamplingError(f"token id {beyond[0]} is beyond the vocabulary of {self.vocabulary}")
        self._refuse_media(inputs)
        marks = set(self.placeholders.values())
        stray = sum(id in marks for id in inputs.ids) - inputs.visual_tokens
        if stray:
            raise PromptError(
                f"{stray} placeholders stand for no medium; give one medium for each run of them"
            )
        if any(not 0 <= id < self.vocabulary for id in inputs.ids if id not in marks):
            raise PromptError(f"the prompt has token ids outside the vocabulary of {self.vocabulary}")
        return rope

    def _limit(self, rope: RopeScaling | None) -> int:
        if rope is None:
            return self.context
        return min(rope_limit(self.config, rope), self.most or sys.maxsize)

    def _refuse_size(self, prompt: int, new: int, context: int) -> None:
        needed = prompt + new
        if needed > context:
            raise CapacityError(
                f"{needed} tokens needed ({prompt} of prompt, {new} to generate), {context} fit the "
                "context; use fewer frames, fewer new tokens or a larger rope factor"
            )
        if needed > self.room:
            raise CapacityError(
                f"{needed} tokens needed ({prompt} of prompt, {new} to generate), {self.room} fit into "
                "kv_bytes; use fewer frames or raise kv_bytes"
            )

    def _refuse_media(self, inputs: ModelInputs) -> None:
        free_from = 0
        for medium in inputs.media:
            if len(medium.key) != _KEY_BYTES:
                raise ValueError(f"the key of a medium has {_KEY_BYTES} bytes, got {len(medium.key)}")
            start, end = medium.start, medium.start + medium.tokens
            if medium.tokens < 1 or start < free_from or end > len(inputs.ids):
                raise PromptError(
                    f"a {medium.kind} stands at tokens {start} to {end} of a prompt of {len(inputs.ids)}: "
                    "outside it, or inside another medium"
                )
            if any(id != self.placeholders[medium.kind] for id in inputs.ids[start:end]):
                raise PromptError(f"tokens {start} to {end} are not all placeholders of a {medium.kind}")
            free_from = end
