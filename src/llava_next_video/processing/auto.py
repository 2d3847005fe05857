"""The name under which transformers' users load a processor."""

import os

from llava_next_video.processing.processor import LlavaNextVideoProcessor


class AutoProcessor:
    """Stands in for transformers' class of that name in code that was written for it."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: object
    ) -> LlavaNextVideoProcessor:
        """The `LlavaNextVideoProcessor` of a checkpoint."""
        return LlavaNextVideoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
