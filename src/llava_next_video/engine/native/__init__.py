"""Kernels in C++ for processors with AVX512-BF16 and VNNI.

They are compiled when an engine first wants them, and kept. Without a compiler or such a processor torch's
own operations compute the same but for rounding, in more passes.
"""

from llava_next_video.engine.native.calls import Kernels, looks
from llava_next_video.engine.native.library import chosen_kernels
from llava_next_video.engine.native.linear import Behind, NativeLinear
from llava_next_video.engine.native.panels import Kind, Norm, Panels
from llava_next_video.engine.native.step import WholeLayer, WholeStep

__all__ = [
    "Behind",
    "Kernels",
    "Kind",
    "NativeLinear",
    "Norm",
    "Panels",
    "WholeLayer",
    "WholeStep",
    "chosen_kernels",
    "looks",
]
