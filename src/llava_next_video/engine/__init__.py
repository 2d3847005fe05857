"""Many requests, one device: ids and pixels in, ids out."""

from llava_next_video.engine.engine import Engine
from llava_next_video.engine.report import Answer, Load
from llava_next_video.engine.request import FinishReason, Output, Timings, TokenLogprob
from llava_next_video.engine.sampling_options import Guide, SamplingOptions
from llava_next_video.engine.settings import EngineSettings

__all__ = [
    "Answer",
    "Engine",
    "EngineSettings",
    "FinishReason",
    "Guide",
    "Load",
    "Output",
    "SamplingOptions",
    "Timings",
    "TokenLogprob",
]
