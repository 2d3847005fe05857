"""What a GPU computes for the engine, in Triton.

This is the one door to Triton: only the CUDA path of the engine comes through it.
"""

from llava_next_video.errors import ConfigError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ConfigError(
        "the engine on a GPU needs Triton, which comes with the CUDA builds of torch; pip install triton"
    ) from error

__all__ = ["tl", "triton"]
