"""Pixels to visual tokens: a lean vision tower, cut behind the last layer that is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2FN

from llava_next_video.engine.linear import MOSTLY_POSITIVE, PackedLinear, linear
from llava_next_video.engine.native import Behind, Kernels, Kind, NativeLinear, Norm
from llava_next_video.engine.product import Product
from llava_next_video.engine.settings import Quantize
from llava_next_video.engine.weights import Weights
from llava_next_video.errors import PromptError
from llava_next_video.geometry import ImageLayout, VideoLayout
from llava_next_video.inputs import Medium
from llava_next_video.model.configuration import CLASS_TOKENS, LlavaNextVideoConfig
from llava_next_video.model.connector import Pooler, lay_out_clips, pack_images

_QUICK = 1.702
_KINDS = {"gelu_pytorch_tanh": Kind.GELU_TANH, "gelu_new": Kind.GELU_TANH, "silu": Kind.SILU}

# On a CPU what lies between two products then stays in the caches: one tile of 336 pixels, which in 8 bits is
# 1.5 times as fast as two, and eight of the 64 pixels that the tiny checkpoint sees, twice as fast as one.
_CACHE_BYTES = 4 << 20
_TILES_IN_KERNELS = 8  # which keep to the caches themselves, a block of rows at a time
_MEMORY_SHARE = 64  # on a GPU, this part of the memory may hold what lies between two products

# The wide rows inside an MLP stay in the cache with its weights, which 8 bits make small enough for that. It
# does not matter where kernels make few passes over them.
_ROWS_IN_8_BITS, _ALL_ROWS = 200, 1_000_000


@dataclass(slots=True, kw_only=True)
class _Layer:
    norm_before_attention: nn.LayerNorm
    norm_before_mlp: nn.LayerNorm
    query_key_value: Product
    attention_out: Product
    up: Product
    down: Product
    behind: Behind | None = None
    """What stands behind attention in one call, where kernels compute it."""

    @property
    def products(self) -> tuple[Product, ...]:
        """All its matrix products."""
        return self.query_key_value, self.attention_out, self.up, self.down


class Vision:
    """The tower, the pooling and the projector of one checkpoint."""

    def __init__(
        self,
        model: Any,
        config: LlavaNextVideoConfig,
        *,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        quantize: Quantize,
        kernels: Kernels | None = None,
    ) -> None:
        self.config = config
        self.kernels = kernels
        self.device, self.dtype = device, dtype
        self.between = dtype if kernels is None else torch.float32
        """What lies between products."""
        tower, vision = model.vision_tower, config.vision_config
        self.heads = vision.num_attention_heads
        patches = (vision.image_size // vision.patch_size) ** 2 + 1
        tile_bytes = patches * (6 * vision.hidden_size + 2 * vision.intermediate_size) * dtype.itemsize
        self.tiles_at_once = tiles_at_once(device, tile_bytes) if kernels is None else _TILES_IN_KERNELS
        passes = quantize == "int8" and kernels is None
        self.rows_at_once = _ROWS_IN_8_BITS if passes else _ALL_ROWS
        chosen = config.vision_feature_layer
        count = vision.num_hidden_layers + 1
        self.chosen = [layer % count for layer in ([chosen] if isinstance(chosen, int) else chosen)]
        self.first_patch = CLASS_TOKENS[vision.model_type] * (
            config.vision_feature_select_strategy == "default"
        )
        embeddings, norm = tower.embeddings, getattr(tower, "pre_layrnorm", None)
        weights.bring(embeddings)
        patch = embeddings.patch_embedding
        self.stride = patch.stride
        self.patch_weight = patch.weight.detach().to(device, dtype)
        self.patch_bias = None if patch.bias is None else patch.bias.detach().to(device, dtype)
        self.positions = embeddings.position_embedding.weight.detach().to(device, dtype)
        class_token = getattr(embeddings, "class_embedding", None)
        self.class_token = None if class_token is None else class_token.detach().to(device, dtype)
        weights.release(embeddings)
        if norm is not None:
            weights.bring(norm)
        self.norm = None if norm is None else _norm(norm, device, self.between)
        # silu(1.702 x) / 1.702 is quick_gelu(x): one pass over the activations, with 1.702 in the weights.
        self.quick = vision.hidden_act == "quick_gelu"
        self.activation = F.silu if self.quick else ACT2FN[vision.hidden_act]
        self.kind = Kind.SILU if self.quick else _KINDS.get(vision.hidden_act)
        self.layers = []
        for layer in tower.encoder.layers[: max(self.chosen)]:
            weights.bring(layer)
            self.layers.append(self._layer(layer, quantize))
            weights.release(layer)
        projector = model.multi_modal_projector
        for module in (projector, model.vision_resampler):
            weights.bring(module)
        weights.bring(model, inner=False)
        self.project_in = self._product(projector.linear_1, quantize=quantize)
        self.project_out = self._product(projector.linear_2, quantize=quantize)
        self.project_activation = ACT2FN[config.projector_hidden_act]
        self.pooler = Pooler(
            mode=config.spatial_pool_mode,
            stride=config.spatial_pool_stride,
            width=vision.hidden_size * len(self.chosen),
            out_width=config.spatial_pool_out_channels or vision.hidden_size,
        ).to(device, dtype)
        self.pooler.load_state_dict(model.vision_resampler.state_dict())
        self.newline = model.image_newline.detach().to(device, dtype)
        ends = getattr(model, "faster_token", None)
        self.frame_token = None if ends is None else ends.detach().to(device, dtype)
        for module in (projector, model.vision_resampler):
            weights.release(module)

    def layout(self, medium: Medium, tiles: Sequence[int]) -> ImageLayout | VideoLayout:
        """How the visual tokens of a medium are ordered, given the shape of its pixels.

        Raises:
            PromptError: the pixels do not make as many visual tokens as the prompt has placeholders.
        """
        vision = self.config.vision_config
        wanted = (vision.num_channels, vision.image_size, vision.image_size)
        if tuple(tiles[1:]) != wanted or not tiles[0]:
            raise PromptError(
                f"pixels of a {medium.kind} have shape {tuple(tiles)}, expected (tiles, {wanted})"
            )
        layout: ImageLayout | VideoLayout
        if medium.kind == "video":
            layout = self.config.video_layout(tiles[0], medium.layout)
        elif medium.size is None:
            raise PromptError("an image needs the size of its original, which decides the order of its tiles")
        else:
            layout = self.config.image_layout(medium.size)
            if layout.tile_count != tiles[0]:
                raise PromptError(f"an image has {tiles[0]} tiles, its size asks for {layout.tile_count}")
        if layout.tokens != medium.tokens:
            raise PromptError(
                f"a {medium.kind} gives {layout.tokens} visual tokens but the prompt has "
                f"{medium.tokens} placeholders"
            )
        return layout

    def frames(
        self, hidden: Float[Tensor, "frames patches width"], strides: Sequence[int] | None = None
    ) -> Float[Tensor, "pooled out"]:
        """What the tower saw of frames, pooled and projected (or the other way round, as the config says).

        `strides` are those of the pooling of each frame; None: the config's.
        """
        grid = self.config.patch_grid
        strides = strides or [self.config.spatial_pool_stride] * len(hidden)
        if self.config.pool_before_projector:
            return self.project(self.pooler.rows(hidden, grid, strides))
        return self.pooler.rows(self.project(hidden), grid, strides)

    def ordered(
        self, features: Float[Tensor, "*tiles patches width"], layout: ImageLayout | VideoLayout
    ) -> Float[Tensor, "tokens width"]:
        """Visual tokens of one medium in order, with their newlines: of its tiles, or its pooled frames."""
        if isinstance(layout, VideoLayout):
            return lay_out_clips(features, [layout], self.newline, self.frame_token)[0]
        return pack_images(features, [layout], self.newline)[0]

    def project(self, features: Float[Tensor, "*tiles width"]) -> Float[Tensor, "*tiles out"]:
        """Features in the width of the decoder."""
        rows = self.project_activation(self.project_in(features.flatten(0, -2)))
        return self.project_out(rows).view(*features.shape[:-1], -1).to(self.dtype)

    def tower(
        self, pixels: Float[Tensor, "tiles channels height width"]
    ) -> Float[Tensor, "tiles patches out"]:
        """Hidden states of the chosen layers, side by side."""
        parts = [self._pass(some) for some in torch.split(pixels, self.tiles_at_once)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(self.dtype)

    def _pass(self, pixels: Tensor) -> Tensor:
        patches = F.conv2d(pixels.to(self.dtype), self.patch_weight, self.patch_bias, stride=self.stride)
        hidden = patches.flatten(2).transpose(1, 2)
        if self.class_token is not None:
            hidden = torch.cat([self.class_token.expand(len(hidden), 1, -1), hidden], dim=1)
        hidden = (hidden + self.positions).to(self.between).contiguous()  # without a class token it is not
        if self.norm is not None:
            hidden = self.norm(hidden)
        found = {0: hidden.clone()} if 0 in self.chosen else {}
        for depth, layer in enumerate(self.layers, start=1):
            self._through(layer, hidden)
            if depth in self.chosen:
                found[depth] = hidden if depth == len(self.layers) else hidden.clone()
        parts = [found[depth][:, self.first_patch :] for depth in self.chosen]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _through(self, layer: _Layer, hidden: Tensor) -> None:
        """One layer, in place."""
        tiles, patches, width = hidden.shape
        rows = hidden.view(-1, width)
        norm, product = layer.norm_before_attention, layer.query_key_value
        heads = (
            product.after_layer_norm(rows, norm) if isinstance(product, NativeLinear) else product(norm(rows))
        )
        attended = self._attended(heads.view(tiles, patches, 3, self.heads, -1)).view(-1, width)
        if layer.behind is not None:
            layer.behind(attended, rows)
            return
        layer.attention_out.onto(attended, rows)
        for some in torch.split(rows, self.rows_at_once):
            self._mlp(layer, some)

    def _attended(
        self, heads: Float[Tensor, "tiles patches 3 heads width"]
    ) -> Float[Tensor, "tiles patches heads*width"]:
        if self.kernels is None:
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tiles, patches, _, count, width = heads.shape
        attended = torch.empty((tiles, patches, count, width), dtype=heads.dtype)
        for tile, out in zip(heads, attended, strict=True):
            query, key, value = tile.unbind(1)
            self.kernels.attend(query, key.transpose(0, 1), value.transpose(0, 1), sums=False, out=out)
        return attended.flatten(2)

    def _mlp(self, layer: _Layer, rows: Tensor) -> None:
        """Norm, product, activation and product, added in place."""
        up, down, norm = layer.up, layer.down, layer.norm_before_mlp
        if isinstance(up, PackedLinear) and self.quick:
            down.onto(up(norm(rows), after="swish"), rows)
        else:
            inner = up(norm(rows))
            down.onto(F.silu(inner, inplace=True) if self.quick else self.activation(inner), rows)

    def _layer(self, layer: Any, quantize: Quantize) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        stretch = _QUICK if self.quick else 1.0
        made = _Layer(
            norm_before_attention=_norm(layer.layer_norm1, self.device, self.between),
            norm_before_mlp=_norm(layer.layer_norm2, self.device, self.between),
            query_key_value=self._product(
                attention.q_proj,
                attention.k_proj,
                attention.v_proj,
                quantize=quantize,
                out_dtype=torch.bfloat16,
            ),
            attention_out=self._product(attention.out_proj, quantize=quantize),
            up=self._product(mlp.fc1, quantize=quantize, weight_by=stretch, bias_by=stretch),
            down=self._product(mlp.fc2, quantize=quantize, weight_by=1 / stretch, zero_point=MOSTLY_POSITIVE),
        )
        norm = Norm.of(made.norm_before_mlp)
        made.behind = Behind.of(made.attention_out, norm, made.up, self.kind, made.down)
        return made

    def _product(
        self,
        *modules: nn.Linear,
        quantize: Quantize,
        weight_by: float = 1.0,
        bias_by: float = 1.0,
        zero_point: int = 128,
        out_dtype: torch.dtype = torch.float32,
    ) -> Product:
        weights = [self._stretched(module.weight, weight_by) for module in modules]
        biases = [None if m.bias is None else self._stretched(m.bias, bias_by) for m in modules]
        return linear(weights, biases, quantize, zero_point, self.kernels, out_dtype)

    def _stretched(self, numbers: Tensor, by: float) -> Tensor:
        """Numbers of the checkpoint times a factor, rounded to our precision once."""
        there = numbers.detach().to(self.device)
        return there.to(self.dtype) if by == 1.0 else (there.float() * by).to(self.dtype)


def tiles_at_once(device: torch.device, tile_bytes: int) -> int:
    """Tiles that go through the tower together: as many as caches, or a part of a GPU's memory, hold.

    >>> tiles_at_once(torch.device("cpu"), 1 << 20), tiles_at_once(torch.device("cpu"), 1 << 25)
    (4, 1)
    """
    if device.type == "cpu":
        return max(1, _CACHE_BYTES // tile_bytes)
    return max(1, torch.cuda.mem_get_info(device)[1] // _MEMORY_SHARE // tile_bytes)


def _norm(norm: nn.LayerNorm, device: torch.device, dtype: torch.dtype) -> nn.LayerNorm:
    ours = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device=device, dtype=dtype)
    ours.load_state_dict(norm.state_dict())
    return ours.requires_grad_(False)
