"""The original's forward pass in the order that its code documents, in plain float64.

Written from the description of `llava_arch.py`, `clip_encoder.py` and `siglip_encoder.py`; one frame, head
and row at a time where that is clearer, and none of the package's code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOWER = "model.vision_tower.vision_tower.vision_model."


@dataclass
class Original:
    """A network of the original release: its weights under their own names, and what the code is told."""

    weights: Mapping[str, Tensor]
    tower: str
    pool_first: bool
    mode: str
    stride: int
    newline: str
    every: int | None = None
    rope_factor: float = 1.0
    heads: int = 4
    groups: int = 2
    tower_heads: int = 3
    theta: float = 10_000.0

    def logits(self, ids: list[int], media: Mapping[int, Tensor]) -> Tensor:
        """Logits of each position; `media` are the visual tokens that stand for the id at an index."""
        table = self.get("model.embed_tokens.weight")
        rows = [media[place] if place in media else table[id][None] for place, id in enumerate(ids)]
        hidden = torch.cat(rows)
        for layer in range(2):
            hidden = self.layer(hidden, f"model.layers.{layer}.")
        return rms_norm(hidden, self.get("model.norm.weight")) @ self.get("lm_head.weight").T

    def clip(self, frames: Tensor) -> Tensor:
        """Visual tokens of a clip."""
        features = self.see(frames.double())
        mark = self.get("model.image_newline")
        tokens: list[Tensor] = []
        for number in range(len(frames)):
            slow = self.every is None or number % self.every == 0
            stride = self.stride if slow else 2 * self.stride
            seen = features[number : number + 1]
            if self.pool_first:
                frame = self.project(self.pool(seen, stride))[0]
            else:
                frame = self.pool(self.project(seen), stride)[0]
            side = math.isqrt(len(frame))
            for place, token in enumerate(frame):
                tokens.append(token)
                if self.newline == "grid" and (place + 1) % side == 0:
                    tokens.append(mark)
            if self.newline == "frame":
                tokens.append(mark)
            if self.every is not None:
                tokens.append(self.get("model.faster_token"))
        if self.newline == "one_token":
            tokens.append(mark)
        return torch.stack(tokens)

    def see(self, frames: Tensor) -> Tensor:
        """CLIP's second to last states without the class token; SigLIP's last, as a layer was deleted."""
        weight = self.get(f"{TOWER}embeddings.patch_embedding.weight")
        hidden = F.conv2d(frames, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
        if self.tower == "siglip":
            hidden = hidden + self.get(f"{TOWER}embeddings.patch_embedding.bias")
            hidden = hidden + self.get(f"{TOWER}embeddings.position_embedding.weight")
            for layer in range(2):
                hidden = self.tower_layer(hidden, layer)
            return hidden
        first = self.get(f"{TOWER}embeddings.class_embedding").expand(len(hidden), 1, -1)
        hidden = torch.cat([first, hidden], dim=1)
        hidden = hidden + self.get(f"{TOWER}embeddings.position_embedding.weight")
        hidden = self.layer_norm(hidden, f"{TOWER}pre_layrnorm")
        for layer in range(2):  # of three
            hidden = self.tower_layer(hidden, layer)
        return hidden[:, 1:]

    def tower_layer(self, hidden: Tensor, number: int) -> Tensor:
        at = f"{TOWER}encoder.layers.{number}."
        states = self.layer_norm(hidden, f"{at}layer_norm1")
        query, key, value = (self.linear(states, f"{at}self_attn.{name}_proj") for name in "qkv")
        size = hidden.shape[-1] // self.tower_heads
        heads = []
        for start in range(0, hidden.shape[-1], size):
            part = slice(start, start + size)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(size)
            heads.append(scores.softmax(dim=-1) @ value[..., part])
        hidden = hidden + self.linear(torch.cat(heads, dim=-1), f"{at}self_attn.out_proj")
        inner = self.linear(self.layer_norm(hidden, f"{at}layer_norm2"), f"{at}mlp.fc1")
        if self.tower == "clip":
            inner = inner * torch.sigmoid(1.702 * inner)
        else:
            inner = F.gelu(inner, approximate="tanh")
        return hidden + self.linear(inner, f"{at}mlp.fc2")

    def pool(self, features: Tensor, stride: int) -> Tensor:
        side = math.isqrt(features.shape[1])
        planes = features.view(len(features), side, side, -1).permute(0, 3, 1, 2)
        if self.mode == "average":
            planes = F.avg_pool2d(planes, stride)
        elif self.mode == "max":
            planes = F.max_pool2d(planes, stride)
        else:
            size = [math.ceil(side / stride)] * 2
            planes = F.interpolate(planes, size=size, mode="bilinear")
        return planes.flatten(2).transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:
        return self.linear(F.gelu(self.linear(features, "model.mm_projector.0")), "model.mm_projector.2")

    def layer(self, hidden: Tensor, at: str) -> Tensor:
        states = rms_norm(hidden, self.get(f"{at}input_layernorm.weight"))
        query, key, value = (self.linear(states, f"{at}self_attn.{name}_proj") for name in "qkv")
        size, length = hidden.shape[-1] // self.heads, len(hidden)
        hides = torch.full((length, length), -math.inf, dtype=torch.float64).triu(1)
        outs = []
        for head in range(self.heads):
            mine, shared = head * size, head // (self.heads // self.groups) * size
            turned_query = self.turned(query[:, mine : mine + size])
            turned_key = self.turned(key[:, shared : shared + size])
            scores = turned_query @ turned_key.T / math.sqrt(size) + hides
            outs.append(scores.softmax(dim=-1) @ value[:, shared : shared + size])
        hidden = hidden + self.linear(torch.cat(outs, dim=-1), f"{at}self_attn.o_proj")
        states = rms_norm(hidden, self.get(f"{at}post_attention_layernorm.weight"))
        gate, up = (self.linear(states, f"{at}mlp.{name}_proj") for name in ("gate", "up"))
        return hidden + self.linear(F.silu(gate) * up, f"{at}mlp.down_proj")

    def turned(self, states: Tensor) -> Tensor:
        """Rotary positions, scaled linearly: position / factor before the rotation."""
        size = states.shape[-1]
        rates = self.theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.outer(torch.arange(len(states), dtype=torch.float64) / self.rope_factor, rates)
        cosine, sine = angles.cos(), angles.sin()
        left, right = states[:, : size // 2], states[:, size // 2 :]
        return torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)

    def linear(self, states: Tensor, name: str) -> Tensor:
        bias = self.weights.get(f"{name}.bias")
        out = states @ self.get(f"{name}.weight").T
        return out if bias is None else out + bias.double()

    def layer_norm(self, states: Tensor, name: str) -> Tensor:
        epsilon = 1e-5 if self.tower == "clip" else 1e-6
        weight, bias = self.get(f"{name}.weight"), self.get(f"{name}.bias")
        return F.layer_norm(states, states.shape[-1:], weight, bias, epsilon)

    def get(self, name: str) -> Tensor:
        return self.weights[name].double()


def rms_norm(states: Tensor, weight: Tensor) -> Tensor:
    return states / torch.sqrt(states.square().mean(dim=-1, keepdim=True) + 1e-5) * weight
