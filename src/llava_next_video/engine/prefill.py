"""Attention of long chunks to keys that lie in a row."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from llava_next_video.engine.plan import Long

Prefill = Literal["flash", "sdpa"]

FLASH_ARGUMENTS = (
    "query",
    "key",
    "value",
    "cum_seq_q",
    "cum_seq_k",
    "max_q",
    "max_k",
    "dropout_p",
    "is_causal",
    "return_debug_mask",
    "scale",
    "window_size_left",
    "window_size_right",
)
"""What we give torch's private flash attention, as torch 2.11 to 2.13 name it."""


def chosen_prefill(device: torch.device, dtype: torch.dtype) -> Prefill:
    """Torch's own flash attention where it can be used, otherwise its public attention, chunk by chunk."""
    usable = (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and not missing_flash_arguments()
    )
    return "flash" if usable else "sdpa"


def missing_flash_arguments() -> list[str]:
    """What torch's flash attention of this version does not take, though we would give it."""
    operation = getattr(torch.ops.aten, "_flash_attention_forward", None)
    if operation is None:
        return list(FLASH_ARGUMENTS)
    known = [argument.name for argument in operation.default._schema.arguments]
    return [name for name in FLASH_ARGUMENTS if name not in known]


def flash(
    queries: Float[Tensor, "asking heads width"],
    keys: Float[Tensor, "seen key_heads width"],
    values: Float[Tensor, "seen key_heads width"],
    begins: tuple[Int32[Tensor, " ends"], Int32[Tensor, " ends"]],
    long: Long,
    window: int | None,
) -> Float[Tensor, "asking heads width"]:
    """All chunks in one launch; the last token of a chunk sees the last key of its part.

    Source: PyTorch, `aten/src/ATen/native/transformers/cuda/attention.cu`, `_flash_attention_forward`.
    """
    found: Tensor = torch.ops.aten._flash_attention_forward(
        queries,
        keys,
        values,
        begins[0],
        begins[1],
        max(long.queries),
        max(long.keys),
        0.0,
        True,
        False,
        scale=queries.shape[2] ** -0.5,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0,
    )[0]
    return found


def sdpa(
    queries: Float[Tensor, "asking heads width"],
    keys: Float[Tensor, "seen key_heads width"],
    values: Float[Tensor, "seen key_heads width"],
    long: Long,
    window: int | None,
) -> Float[Tensor, "asking heads width"]:
    """The same, chunk by chunk."""
    found, asked, seen = [], 0, 0
    for count, context in zip(long.queries, long.keys, strict=True):
        query = queries[asked : asked + count].transpose(0, 1)[None]
        key = keys[seen : seen + context].transpose(0, 1)[None]
        value = values[seen : seen + context].transpose(0, 1)[None]
        whole = count == context and (window is None or context <= window)
        mask = None if whole else _mask(count, context, window, queries.device)
        one = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=whole, enable_gqa=query.shape[1] != key.shape[1]
        )
        found.append(one[0].transpose(0, 1))
        asked, seen = asked + count, seen + context
    return torch.cat(found)


def _mask(count: int, context: int, window: int | None, device: torch.device) -> Tensor:
    position = torch.arange(context - count, context, device=device)[:, None]
    back = position - torch.arange(context, device=device)
    return (back >= 0) if window is None else (back >= 0) & (back < window)
