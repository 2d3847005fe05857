"""Kernels in C++ for processors with AVX512-BF16 and VNNI.

They are compiled when an engine first wants them, and kept. Without a compiler or such a processor torch's
own operations compute the same but for rounding, in more passes.
"""

from llava_next_video.engine.native.calls import Kernels, Kind, Norm, Raw, looks
from llava_next_video.engine.native.library import chosen_kernels
from llava_next_video.engine.native.linear import Int8Kernels

__all__ = ["Int8Kernels", "Kernels", "Kind", "Norm", "Raw", "chosen_kernels", "looks"]
