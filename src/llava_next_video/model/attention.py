"""What is said when FlashAttention is asked for and cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager

from llava_next_video.errors import MissingExtraError


@contextmanager
def named_attention(implementation: object) -> Iterator[None]:
    """Turn transformers' advice on FlashAttention into one sentence.

    Raises:
        MissingExtraError: It is not installed, or not for this device.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error, MissingExtraError) or "flash" not in str(implementation):
            raise
        reason = " ".join(str(error).rpartition("following error: ")[2].split()).partition(". ")[0]
        raise MissingExtraError(
            f"attn_implementation={implementation!r} cannot be used: {reason.removesuffix('.')}; install "
            "flash-attn for a CUDA device, or leave the argument out (sdpa)"
        ) from error
