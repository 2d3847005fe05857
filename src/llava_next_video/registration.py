"""Our classes behind transformers' Auto classes, on request."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from llava_next_video.model import (
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoModel,
)
from llava_next_video.processing import LlavaNextVideoProcessor


def register() -> None:
    """From now on, transformers' Auto classes load LLaVA-NeXT-Video checkpoints with our classes.

    For programs that load by `AutoModelForImageTextToText.from_pretrained` and the like. It holds for the
    whole process, which is why importing the package does not do it. May be called again. (`pipeline` goes on
    asking for a processor of transformers' own make.)
    """
    AutoConfig.register(LlavaNextVideoConfig.model_type, LlavaNextVideoConfig, exist_ok=True)
    AutoModel.register(LlavaNextVideoConfig, LlavaNextVideoModel, exist_ok=True)
    for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto.register(LlavaNextVideoConfig, LlavaNextVideoForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(LlavaNextVideoConfig, LlavaNextVideoProcessor, exist_ok=True)
    # A checkpoint names its processor's class, and transformers looks that name up among its own first.
    PROCESSOR_MAPPING_NAMES.pop(LlavaNextVideoConfig.model_type, None)
