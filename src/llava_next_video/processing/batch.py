"""Pictures, clips and rendered texts of one call to one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from transformers import BatchFeature, PreTrainedTokenizerBase

from llava_next_video.errors import PromptError
from llava_next_video.inputs import MediumKind, ModelInputs
from llava_next_video.long_video import ClipLayout
from llava_next_video.media import Clip, Picture
from llava_next_video.processing.call import CallOptions
from llava_next_video.processing.chat import Rendered
from llava_next_video.processing.counting import Counting
from llava_next_video.processing.image import LlavaNextImageProcessor
from llava_next_video.processing.promise import Promises
from llava_next_video.processing.prompt import Placeholders
from llava_next_video.processing.text import text_inputs
from llava_next_video.processing.video import LlavaNextVideoImageProcessor
from llava_next_video.size import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What turns media into pixels and texts into ids, and how many visual tokens stand between them."""

    pictures: LlavaNextImageProcessor
    clips: LlavaNextVideoImageProcessor
    tokenizer: PreTrainedTokenizerBase
    placeholders: Placeholders
    counting: Counting

    def batch(
        self, texts: Sequence[Rendered], images: object, videos: object, call: CallOptions
    ) -> BatchFeature:
        """Ids and pixels; without texts the pixels alone.

        Raises:
            PromptError: Nothing was given, or placeholders and media do not agree.
        """
        if not texts and images is None and videos is None:
            raise PromptError("nothing was given; pass text, images or videos")
        pixels: dict[str, object] = {}
        tokens: dict[MediumKind, list[int]] = {"image": [], "video": []}
        if images is not None:
            pixels |= self.pictures(images, return_tensors=call.return_tensors, **call.images)
            settings, pinpoints = call.picture_settings(self.pictures)
            sizes = (Size(*map(int, size)) for size in cast(Sequence[Sequence[int]], pixels["image_sizes"]))
            tokens["image"] = [self.counting.picture(size, settings, pinpoints) for size in sizes]
        if videos is not None:
            pixels |= self.clips(videos, return_tensors=call.return_tensors, **call.videos)
            clips = cast("Sequence[np.ndarray]", pixels["pixel_values_videos"])
            tokens["video"] = [self.counting.clip(len(clip), Size(*clip.shape[-2:])) for clip in clips]
        if not texts:
            return BatchFeature(pixels)
        words = text_inputs(
            texts, tokens=tokens, tokenizer=self.tokenizer, placeholders=self.placeholders, call=call
        )
        return BatchFeature({**words, **pixels})

    def promised(
        self, one: Rendered, media: Sequence[Clip | Picture], layout: ClipLayout | None = None
    ) -> tuple[ModelInputs, tuple[bool, ...]]:
        """Ids with promises of pixels, and for each id whether the assistant said it.

        Raises:
            PromptError: Placeholders and media do not agree.
        """
        promises = Promises(
            clips=self.clips.settings(),
            pictures=self.pictures.settings(),
            pinpoints=self.pictures.pinpoints,
            counting=self.counting,
            layout=layout,
        )
        return promises.prepared(one, media, self.tokenizer, self.placeholders)
