"""A conversation to what the model eats: ids and pixels."""

from llava_next_video.processing.auto import AutoProcessor
from llava_next_video.processing.chat import TEMPLATE_NAMES, TemplateName, chat_template
from llava_next_video.processing.image import LlavaNextImageProcessor
from llava_next_video.processing.processor import LlavaNextVideoProcessor
from llava_next_video.processing.video import LlavaNextVideoImageProcessor, LlavaNextVideoVideoProcessor

__all__ = [
    "TEMPLATE_NAMES",
    "AutoProcessor",
    "LlavaNextImageProcessor",
    "LlavaNextVideoImageProcessor",
    "LlavaNextVideoProcessor",
    "LlavaNextVideoVideoProcessor",
    "TemplateName",
    "chat_template",
]
