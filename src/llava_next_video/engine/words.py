"""Words to hidden states, and those to logits of the next word."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from llava_next_video.engine.linear import linear
from llava_next_video.engine.native import Kernels
from llava_next_video.engine.settings import FewRows, Quantize
from llava_next_video.engine.weights import Weights


class Words:
    """Embeddings, the last norm and the head: what stands before and behind the layers of a decoder."""

    def __init__(
        self,
        text: Any,
        head: nn.Linear,
        *,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        between: torch.dtype,
        quantize: Quantize,
        few_rows: FewRows = "torch",
        kernels: Kernels | None = None,
    ) -> None:
        """Take them from a text network; hidden states are in the precision `between`."""
        for module in (text.embed_tokens, head, text.norm):
            weights.bring(module)
        self.between = between
        self.epsilon = text.config.rms_norm_eps
        self.vocabulary = head.weight.shape[0]
        self.embedding = text.embed_tokens.weight.detach().to(device, dtype)
        self.norm = text.norm.weight.detach().to(device, between)
        bias = None if head.bias is None else head.bias.detach().to(device, dtype)
        narrow = quantize if device.type == "cpu" else "none"  # on a GPU few bits save little here
        self.head = linear(
            [head.weight.detach().to(device, dtype)], [bias], narrow, kernels=kernels, few_rows=few_rows
        )
        for module in (text.embed_tokens, head, text.norm):
            weights.release(module)

    def embed(self, ids: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens width"]:
        """Embeddings of words."""
        return F.embedding(ids, self.embedding).to(self.between)

    def logits(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits of the next token, in float32."""
        return self.head.after_norm(hidden, self.norm, self.epsilon).float()
