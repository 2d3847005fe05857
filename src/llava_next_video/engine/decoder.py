"""The text layers of the Llama, Mistral and Qwen2 families, lean.

The families differ in switches only: grouped heads, biases, sliding windows, rope. Weights with one input are
fused; the halves of each head are interleaved once, so that rope is one complex product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn
from transformers.activations import ACT2FN

from llava_next_video.engine.between import gated
from llava_next_video.engine.linear import linear
from llava_next_video.engine.linear_wide import WideLinear
from llava_next_video.engine.native import Behind, Kernels, Kind, Norm
from llava_next_video.engine.parallel import WHOLE, Share
from llava_next_video.engine.product import Product
from llava_next_video.engine.rope import Rope
from llava_next_video.engine.settings import FewRows, Quantize
from llava_next_video.engine.weights import Weights
from llava_next_video.errors import ConfigError
from llava_next_video.model.configuration import head_width

FAMILIES = ("llama", "mistral", "qwen2")

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, queries, keys and values), each tokens x heads x width of a head, to tokens x heads x width.

The heads of the keys come first, then those of the values."""


@dataclass(slots=True, kw_only=True)
class Layer:
    """The weights of one layer."""

    norm_before_attention: Tensor
    norm_before_mlp: Tensor
    query_key_value: Product
    attention_out: Product
    gate_up: Product
    down: Product
    behind: Behind | None = None
    """What stands behind attention in one call, where kernels compute it."""

    @property
    def products(self) -> tuple[Product, ...]:
        """All its matrix products."""
        return self.query_key_value, self.attention_out, self.gate_up, self.down


class Decoder:
    """Embeddings to hidden states, for packed tokens of many requests; or one share of that."""

    def __init__(
        self,
        text: Any,
        *,
        weights: Weights,
        context: int,
        scalings: int,
        device: torch.device,
        dtype: torch.dtype,
        quantize: Quantize,
        few_rows: FewRows = "torch",
        kernels: Kernels | None = None,
        share: Share = WHOLE,
    ) -> None:
        config: Any = text.config
        if config.model_type not in FAMILIES:
            raise ConfigError(
                f"the engine knows the text families {', '.join(FAMILIES)}, not {config.model_type}; "
                "use the reference model"
            )
        self.share = share
        self.heads = config.num_attention_heads // share.count
        self.key_value_heads = config.num_key_value_heads // share.count
        self.head_width = head_width(config)
        self.width = config.hidden_size
        self.epsilon = config.rms_norm_eps
        self.windows = _windows(config)
        self.device, self.dtype, self.kernels = device, dtype, kernels
        self.store_dtype = dtype if kernels is None else torch.bfloat16
        self.between = dtype if kernels is None else torch.float32
        """What lies between products."""
        self.context = context
        self.rope = Rope(
            text.rotary_emb, config, head_width=self.head_width, scalings=scalings, device=device
        )
        self.activation = F.silu if config.hidden_act == "silu" else ACT2FN[config.hidden_act]
        self.layers = []
        for layer in text.layers:
            weights.bring(layer)
            self.layers.append(self._layer(layer, quantize, few_rows))
            weights.release(layer)

    def _layer(self, layer: Any, quantize: Quantize, few_rows: FewRows) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp

        def made_of(*parts: tuple[Tensor, Tensor | None], turned: int = 0) -> Product:
            matrices = [weight.to(self.device, self.dtype) for weight, _ in parts]
            biases = [None if bias is None else bias.to(self.device, self.dtype) for _, bias in parts]
            for index in range(turned):
                matrices[index] = interleaved(matrices[index], self.head_width)
                bias = biases[index]
                biases[index] = None if bias is None else interleaved(bias, self.head_width)
            return linear(matrices, biases, quantize, kernels=self.kernels, few_rows=few_rows)

        def fused(*modules: nn.Linear, turned: int = 0) -> Product:
            return made_of(*(self.share.by_output(module) for module in modules), turned=turned)

        def summed(module: nn.Linear) -> Product:
            return self.share.summed(made_of(self.share.by_input(module)))

        made = Layer(
            norm_before_attention=layer.input_layernorm.weight.detach().to(self.device, self.between),
            norm_before_mlp=layer.post_attention_layernorm.weight.detach().to(self.device, self.between),
            query_key_value=fused(attention.q_proj, attention.k_proj, attention.v_proj, turned=2),
            attention_out=summed(attention.o_proj),
            gate_up=fused(mlp.gate_proj, mlp.up_proj),
            down=summed(mlp.down_proj),
        )
        norm = Norm(made.norm_before_mlp, self.epsilon)
        kind = Kind.GATED_SILU if self.activation is F.silu else None
        made.behind = Behind.of(made.attention_out, norm, made.gate_up, kind, made.down)
        return made

    def forward(
        self,
        hidden: Float[Tensor, "tokens width"],
        turns: Complex[Tensor, "tokens half"] | None,
        attend: Attend,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float[Tensor, "rows width"]:
        """Hidden states after the last layer, before the last norm; what stands in `hidden` is lost.

        Args:
            hidden: Embeddings of the packed tokens.
            turns: The turns of their positions; None: `attend` turns queries and keys itself.
            attend: Keys and values in, attention out.
            wanted: The rows to give; None: all. The others end with the keys and values of the last layer.
        """
        tokens, last = hidden.shape[0], len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            heads = layer.query_key_value.after_norm(hidden, layer.norm_before_attention, self.epsilon)
            heads = heads.view(tokens, -1, self.head_width)
            if turns is not None:
                rotate(heads[:, : self.heads + self.key_value_heads], turns[:, None])
            attended = attend(index, heads[:, : self.heads], heads[:, self.heads :]).reshape(tokens, -1)
            if index == last and wanted is not None:
                if not len(wanted):
                    return hidden[:0]
                attended, hidden = attended.index_select(0, wanted), hidden.index_select(0, wanted)
            if layer.behind is not None:
                hidden = layer.behind(attended, hidden)
            else:
                hidden = self._mlp(layer, layer.attention_out.onto(attended, hidden))
        return hidden

    def _mlp(self, layer: Layer, hidden: Tensor) -> Tensor:
        gate_up, down, norm = layer.gate_up, layer.down, layer.norm_before_mlp
        if isinstance(gate_up, WideLinear):
            inner = gate_up.gated_after_norm(hidden, norm, self.epsilon, self.activation)
        else:
            inner = gated(gate_up.after_norm(hidden, norm, self.epsilon), self.activation)
        return down.onto(inner, hidden)


def rotate(heads: Float[Tensor, "tokens heads width"], turns: Complex[Tensor, "tokens 1 half"]) -> None:
    """Rope for interleaved heads, in place: pairs as complex numbers, times the turn of the position."""
    pairs = heads.view(*heads.shape[:-1], -1, 2)
    if heads.dtype is torch.float32:
        torch.view_as_complex(pairs).mul_(turns)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * turns))


def interleaved(rows: Float[Tensor, "out *width"], head_width: int) -> Float[Tensor, "out *width"]:
    """Rows of each head in the order 0, half, 1, half + 1, ...; products of queries and keys do not change.

    >>> interleaved(torch.arange(8.0), 4).tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    halves = rows.reshape(-1, 2, head_width // 2, *rows.shape[1:])
    return halves.transpose(1, 2).flatten(0, 2)


def _windows(config: Any) -> list[int | None]:
    """For each layer how many tokens it looks back, itself included; None: all."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    if config.model_type == "mistral":
        return [window] * config.num_hidden_layers
    return [window if kind == "sliding_attention" else None for kind in types]
