"""Networks of several seeds side by side: one forward pass, one set of stacked weights.

The same arithmetic as transformers' CLIP and Llama, written for a device that likes few large operations.
Every activation begins with the seed: seeds x rows x tokens x width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from network import CELLS, FRAMES, GRID, LAYERS, MEAN, PATCH, SPREAD, WIDTH
from painting import kept
from torch import Tensor, nn
from torch.nn import functional

from llava_next_video.size import Size

HEADS, VISION_HEADS, THETA = 6, 4, 1000.0
TOWER, LANGUAGE = "model.vision_tower.", "model.language_model."
_ENCODER = f"{TOWER}encoder.layers."

Weights = dict[str, Tensor]


class Networks(nn.Module):
    """Weights of several networks, stacked over the seeds; those of layers over the layers, too."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        states = [dict(network.named_parameters()) for network in networks]
        stacked: dict[str, list[Tensor]] = {}
        for name in states[0]:
            weight = torch.stack([state[name].detach().float() for state in states])
            stacked.setdefault(starred(name), []).append(weight)
        for key, found in stacked.items():
            value = torch.stack(found) if ".*." in key else found[0]
            self.names[key] = key.replace(".", "/")
            self.register_parameter(self.names[key], nn.Parameter(value))

    @property
    def seeds(self) -> int:
        return self.weight("model.image_newline").shape[0]

    def weight(self, key: str) -> nn.Parameter:
        """One stacked weight by its name; `*` stands for the layer, which is the first dimension."""
        return self.get_parameter(self.names[key])

    def layers(self, prefix: str) -> list[Weights]:
        """The weights of each layer, by the last part of their names."""
        named = {key.removeprefix(f"{prefix}*."): key for key in self.names if key.startswith(f"{prefix}*.")}
        split_up = {short: self.weight(key).unbind(0) for short, key in named.items()}
        count = len(next(iter(split_up.values())))
        return [{short: found[layer] for short, found in split_up.items()} for layer in range(count)]

    @torch.no_grad()
    def put(self, seed: int, state: Weights) -> None:
        """Put weights of one network, under transformers' names, where they belong; others stay."""
        for name, one in state.items():
            place = self.weight(starred(name))
            numbers = (
                [int(word) for word in name.split(".") if word.isdigit()] if ".*." in starred(name) else []
            )
            place[(*numbers, seed)] = one.to(place)

    def states(self, kind: torch.dtype) -> list[Weights]:
        """The weights of each network under transformers' names, on the processor."""
        found: list[Weights] = [{} for _ in range(self.seeds)]
        for key in self.names:
            weight = self.weight(key).detach().to(kind).cpu()
            starry = ".*." in key
            named = (
                {key.replace("*", str(n)): one for n, one in enumerate(weight)} if starry else {key: weight}
            )
            for name, stacked in named.items():
                for state, one in zip(found, stacked, strict=True):
                    state[name] = one.clone()
        return found


def starred(name: str) -> str:
    """A name with `*` in place of the layer's number.

    >>> starred("model.language_model.layers.3.mlp.up_proj.weight")
    'model.language_model.layers.*.mlp.up_proj.weight'
    """
    return ".".join("*" if word.isdigit() else word for word in name.split("."))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each seed's rows through each seed's matrix, in half precision where the input is."""
    flat = x.flatten(1, -2)
    made = torch.bmm(flat, weight.to(x.dtype).mT)
    if bias is not None:
        made = made + bias.to(x.dtype)[:, None]
    return made.unflatten(1, x.shape[1:-1])


def _scaled(x: Tensor, weight: Tensor) -> Tensor:
    return x * weight.view(weight.shape[0], 1, 1, -1)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _scaled(functional.layer_norm(x, x.shape[-1:]), weight) + bias.view(bias.shape[0], 1, 1, -1)


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return _scaled(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6), weight)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.flatten(0, 1).unflatten(-1, (count, -1)).transpose(1, 2)


def _join(x: Tensor, seeds: int) -> Tensor:
    return x.transpose(1, 2).flatten(2).unflatten(0, (seeds, -1))


def tower_layer(weights: Weights, x: Tensor, half: torch.dtype) -> Tensor:
    """One layer of the tower; the stream stays in single precision."""
    seeds = len(x)

    def project(name: str, inner: Tensor) -> Tensor:
        return linear(inner, weights[f"{name}.weight"], weights[f"{name}.bias"])

    inner = _layer_norm(x, weights["layer_norm1.weight"], weights["layer_norm1.bias"]).to(half)
    q, k, v = (_heads(project(f"self_attn.{name}_proj", inner), VISION_HEADS) for name in "qkv")
    mixed = _join(functional.scaled_dot_product_attention(q, k, v), seeds)
    x = x + project("self_attn.out_proj", mixed)
    inner = _layer_norm(x, weights["layer_norm2.weight"], weights["layer_norm2.bias"]).to(half)
    inner = functional.gelu(project("mlp.fc1", inner), approximate="tanh")
    return x + project("mlp.fc2", inner)


class Past(Protocol):
    """Keys and values of the tokens before."""

    def grown(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All so far, with these behind them: rows x heads x tokens x head width."""
        ...


def language_layer(
    weights: Weights,
    x: Tensor,
    mask: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    half: torch.dtype,
    past: Past | None = None,
) -> Tensor:
    """One layer of the language model; `mask` is added to the scores, rows x 1 x tokens x tokens."""
    seeds = len(x)

    def project(name: str, inner: Tensor) -> Tensor:
        return linear(inner, weights[f"{name}.weight"])

    inner = _rms_norm(x, weights["input_layernorm.weight"]).to(half)
    q, k, v = (_heads(project(f"self_attn.{name}_proj", inner), HEADS) for name in "qkv")
    q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
    if past is not None:
        k, v = past.grown(k, v)
    mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    x = x + project("self_attn.o_proj", _join(mixed, seeds))
    inner = _rms_norm(x, weights["post_attention_layernorm.weight"]).to(half)
    inner = functional.silu(project("mlp.gate_proj", inner)) * project("mlp.up_proj", inner)
    return x + project("mlp.down_proj", inner)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning:
    """How fast the pairs of features of a head turn (half a head's width), and how much they grow."""

    speeds: Tensor
    strength: float = 1.0


def angles(positions: Tensor, turning: Turning | None = None) -> tuple[Tensor, Tensor]:
    """Cosine and sine for positions (rows x tokens): rows x 1 x tokens x head width; None: as in training."""
    width = WIDTH // HEADS
    if turning is None:
        turning = Turning(speeds=THETA ** -(torch.arange(0, width, 2, device=positions.device) / width))
    turned = positions[..., None].float() * turning.speeds
    turned = torch.cat([turned, turned], -1)[:, None]
    return turned.cos() * turning.strength, turned.sin() * turning.strength


def mask_of(numbers: Tensor, half: torch.dtype) -> Tensor:
    """What is added to scores: tokens see what came before, of the same dialogue or of all (0)."""
    order = torch.arange(numbers.shape[1], device=numbers.device)
    same = (numbers[:, None, :] == 0) | (numbers[:, :, None] == numbers[:, None, :])
    seen = (order[:, None] >= order[None, :]) & same
    return torch.where(seen, 0.0, -1e9).to(half)[:, None]


class Model:
    """The parts of the forward pass, on the networks' device, compiled where that pays."""

    def __init__(self, networks: Networks, *, compiled: bool) -> None:
        self.networks = networks
        self.device = networks.weight("model.image_newline").device
        self.half = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.mean, self.spread = MEAN.to(self.device), SPREAD.to(self.device)
        make = torch.compile if compiled else lambda function, **_: function
        self.tower_layer = make(tower_layer, dynamic=False)
        self.language_layer = make(language_layer, dynamic=False)

    def patches(self, pixels: Tensor) -> Tensor:
        """The tower over pictures between 0 and 1: seeds x pictures x patches x width."""
        weight = self.networks.weight
        cut = ((pixels - self.mean) / self.spread).unflatten(-1, (GRID, PATCH)).unflatten(-3, (GRID, PATCH))
        # seeds pictures 3 row y column x -> seeds pictures (row column) (3 y x)
        cut = cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)
        kernel = weight(f"{TOWER}embeddings.patch_embedding.weight").flatten(2)
        x = linear(cut.to(self.half), kernel).float()
        token = weight(f"{TOWER}embeddings.class_embedding")[:, None, None].expand(-1, x.shape[1], 1, -1)
        x = torch.cat([token, x], 2)
        x = x + weight(f"{TOWER}embeddings.position_embedding.weight")[:, None]
        norm = [weight(f"{TOWER}pre_layrnorm.{name}") for name in ("weight", "bias")]
        x = _layer_norm(x, *norm)
        for layer in self.networks.layers(_ENCODER):
            x = self.tower_layer(layer, x, self.half)
        return x[:, :, 1:]

    def project(self, features: Tensor) -> Tensor:
        """Features as the language model reads them."""
        weight = self.networks.weight
        for number, last in (("1", False), ("2", True)):
            name = f"model.multi_modal_projector.linear_{number}"
            features = linear(features.to(self.half), weight(f"{name}.weight"), weight(f"{name}.bias"))
            if not last:
                features = functional.gelu(features)
        return features.float()

    def seen_clips(self, patches: Tensor, frames: int = FRAMES) -> Tensor:
        """Pooled and projected: seeds x clips x visual tokens x width."""
        grid = patches.unflatten(2, (CELLS, 2, CELLS, 2)).mean((3, 5))
        return self.project(grid.flatten(2, 3).unflatten(1, (-1, frames)).flatten(2, 3))

    def seen_pictures(self, patches: Tensor, size: Size) -> Tensor:
        """Base view, then rows of tiles with a newline after each."""
        views = self.project(patches).unflatten(1, (-1, 5))
        base, tiles = views[:, :, 0], views[:, :, 1:].unflatten(3, (GRID, GRID)).unflatten(2, (2, 2))
        # seeds pictures tile-row tile-column y x -> rows and columns of all tiles
        grid = tiles.transpose(3, 4).flatten(2, 3).flatten(3, 4)
        found, y, x = kept(size)
        grid = grid[:, :, y : y + found.height, x : x + found.width]
        newline = self.networks.weight("model.image_newline")[:, None, None, None]
        newline = newline.expand(-1, *grid.shape[1:3], 1, -1)
        return torch.cat([base, torch.cat([grid, newline], 3).flatten(2, 3)], 2)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of ids (seeds x rows x tokens)."""
        table = self.networks.weight(f"{LANGUAGE}embed_tokens.weight")
        return torch.stack([functional.embedding(one, words) for one, words in zip(ids, table, strict=True)])

    def through(
        self,
        x: Tensor,
        numbers: Tensor,
        positions: Tensor,
        first: int,
        last: int = LAYERS,
        turning: Turning | None = None,
    ) -> Tensor:
        """Layers `first` to `last` over rows whose numbers and positions are seeds x rows x tokens."""
        mask = mask_of(numbers.flatten(0, 1), self.half)
        cos, sin = angles(positions.flatten(0, 1), turning)
        for layer in self.networks.layers(f"{LANGUAGE}layers.")[first:last]:
            x = self.language_layer(layer, x, mask, cos, sin, self.half)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Scores of all words."""
        x = _rms_norm(x, self.networks.weight(f"{LANGUAGE}norm.weight")).to(self.half)
        return linear(x, self.networks.weight(f"{LANGUAGE}embed_tokens.weight")).float()
