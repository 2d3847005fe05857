"""A step that only generates, from embeddings to logits, in one call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from llava_next_video.engine.native.linear import Behind, NativeLinear
from llava_next_video.engine.native.panels import Norm
from llava_next_video.engine.native.structs import DecoderStruct, LayerStruct


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeLayer:
    """A layer: the norm and the product before attention, and what stands behind it."""

    norm: Norm
    heads: NativeLinear
    behind: Behind


class WholeStep:
    """All layers and the head, for tokens that each belong to another request.

    Args:
        layers: From first to last.
        norm: Before the head.
        head: To logits.
        heads: Of the queries; their features are interleaved, as those of the keys are.
        key_heads: Of the keys, and of the values.
        head_width: Features of one.
    """

    def __init__(
        self,
        layers: Sequence[WholeLayer],
        norm: Norm,
        head: NativeLinear,
        *,
        heads: int,
        key_heads: int,
        head_width: int,
    ) -> None:
        self._parts = layers, norm, head  # the structs name only where they lie
        structs = [
            LayerStruct(layer.heads.panels.product(norm=layer.norm), layer.behind.struct) for layer in layers
        ]
        self._layers = (LayerStruct * len(structs))(*structs)
        self._decoder = DecoderStruct(
            ctypes.addressof(self._layers),
            len(structs),
            head.panels.product(norm=norm),
            *(heads, key_heads, head_width),
        )
        self._kernels, self._vocabulary = head.kernels, head.panels.out

    def __call__(
        self,
        hidden: Float[Tensor, "rows width"],
        turns: Complex[Tensor, "rows half"],
        store: Float[Tensor, "layers 2 key_heads slots head_width"],
        slots: Int[Tensor, " rows"],
        looks: Int[Tensor, "looks 3"],
    ) -> Float[Tensor, "rows vocabulary"]:
        """Logits, given where keys and values are to go and what each row looks at; `hidden` is lost."""
        logits = torch.empty(len(hidden), self._vocabulary)
        return self._kernels.step(self._decoder, store, hidden, turns, slots, looks, logits)
