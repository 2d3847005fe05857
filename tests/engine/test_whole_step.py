"""A step of the decoder in one call, against its definition in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llava_next_video.engine.linear import linear
from llava_next_video.engine.native import (
    Behind,
    Kernels,
    Kind,
    NativeLinear,
    Norm,
    WholeLayer,
    WholeStep,
    looks,
)
from llava_next_video.engine.settings import Quantize

WIDTH, INNER, VOCABULARY, LAYERS, SLOTS, EPSILON = 50, 36, 70, 2, 700, 1e-5
LOSS: dict[Quantize, float] = {"none": 0.01, "int8": 0.04}


@dataclass(frozen=True, kw_only=True)
class Network:
    """The weights of a small decoder, each a matrix with a bias."""

    heads: int
    key_heads: int
    head_width: int
    layers: Sequence[dict[str, tuple[Tensor, Tensor]]]
    head: tuple[Tensor, Tensor]
    norm: Tensor

    @classmethod
    def random(cls, heads: int, key_heads: int, head_width: int) -> Network:
        dice = torch.Generator().manual_seed(heads + head_width)

        def matrix(out: int, width: int) -> tuple[Tensor, Tensor]:
            weight = torch.randn(out, width, generator=dice).bfloat16().float() / math.sqrt(width)
            return weight.bfloat16().float(), torch.randn(out, generator=dice).bfloat16().float() / 4

        shapes = {
            "qkv": ((heads + 2 * key_heads) * head_width, WIDTH),
            "out": (WIDTH, heads * head_width),
            "up": (2 * INNER, WIDTH),
            "down": (WIDTH, INNER),
        }
        return cls(
            heads=heads,
            key_heads=key_heads,
            head_width=head_width,
            layers=[{name: matrix(*shape) for name, shape in shapes.items()} for _ in range(LAYERS)],
            head=matrix(VOCABULARY, WIDTH),
            norm=torch.rand(WIDTH, generator=dice) + 0.5,
        )

    def in_kernels(self, kernels: Kernels, quantize: Quantize) -> WholeStep:
        def packed(one: tuple[Tensor, Tensor]) -> NativeLinear:
            made = linear([one[0].bfloat16()], [one[1]], quantize, kernels=kernels)
            assert isinstance(made, NativeLinear)
            return made

        norm, layers = Norm(self.norm, EPSILON), []
        for layer in self.layers:
            qkv, out, up, down = (packed(layer[name]) for name in ("qkv", "out", "up", "down"))
            behind = Behind(out, norm, up, Kind.GATED_SILU, down)
            layers.append(WholeLayer(norm=norm, heads=qkv, behind=behind))
        return WholeStep(
            layers,
            norm,
            packed(self.head),
            heads=self.heads,
            key_heads=self.key_heads,
            head_width=self.head_width,
        )

    def exactly(
        self, hidden: Tensor, turns: Tensor, store: Tensor, slots: list[int], seen: list[list[int]]
    ) -> Tensor:
        """Logits in float64; writes to the store, which is in float64, as well."""
        hidden = hidden.double()
        for layer, stored in zip(self.layers, store, strict=True):
            heads = product(self.normed(hidden), layer["qkv"]).unflatten(1, (-1, self.head_width))
            both = self.heads + self.key_heads
            pairs = torch.view_as_complex(heads[:, :both].unflatten(2, (-1, 2)).contiguous())
            turned = torch.view_as_real(pairs * turns[:, None]).flatten(2)
            queries = turned[:, : self.heads]
            stored[0][:, slots] = turned[:, self.heads :].transpose(0, 1)
            stored[1][:, slots] = heads[:, both:].transpose(0, 1)
            attended = []
            for query, places in zip(queries, seen, strict=True):
                keys, values = stored[:, :, places].repeat_interleave(self.heads // self.key_heads, 1)
                shares = torch.softmax(torch.einsum("hw,hkw->hk", query, keys) / self.head_width**0.5, 1)
                attended.append(torch.einsum("hk,hkw->hw", shares, values).flatten())
            hidden = hidden + product(torch.stack(attended), layer["out"])
            gate, up = product(self.normed(hidden), layer["up"]).chunk(2, dim=1)
            hidden = hidden + product(F.silu(gate) * up, layer["down"])
        return product(self.normed(hidden), self.head)

    def normed(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, (WIDTH,), self.norm.double(), EPSILON)


def product(x: Tensor, one: tuple[Tensor, Tensor]) -> Tensor:
    return x @ one[0].double().T + one[1].double()


@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize(
    ("heads", "key_heads", "head_width"), [(9, 3, 64), (4, 4, 32), (2, 1, 72), (5, 1, 16), (3, 3, 6)]
)
def test_a_step_in_one_call_gives_the_logits_of_its_definition(
    kernels: Kernels, quantize: Quantize, heads: int, key_heads: int, head_width: int
) -> None:
    """A row alone; one whose pages lie apart; one longer than a piece; one that looks at another's pages."""
    ranges = [[(7, 8)], [(16, 32), (48, 49)], [(64, 464)], [(64, 112), (640, 673)]]
    network = Network.random(heads, key_heads, head_width)
    dice = torch.Generator().manual_seed(1)
    store = torch.randn(LAYERS, 2, key_heads, SLOTS, head_width, generator=dice).bfloat16()
    store[:, :, :, 600:640] = torch.nan  # what nobody has written may be anything
    hidden = torch.randn(len(ranges), WIDTH, generator=dice)
    angles = torch.rand(len(ranges), head_width // 2, generator=dice) * 6
    turns = torch.polar(torch.ones_like(angles), angles)
    slots = [one[-1][1] - 1 for one in ranges]  # each sees itself last
    there = store.double()
    exact = network.exactly(
        hidden,
        turns,
        there,
        slots,
        [[at for begin, end in one for at in range(begin, end)] for one in ranges],
    )
    seen = looks([(row, *lie) for row, one in enumerate(ranges) for lie in one])
    step = network.in_kernels(kernels, quantize)
    found = step(hidden.clone(), turns, store, torch.tensor(slots), seen)
    assert (found - exact).norm() / exact.norm() < LOSS[quantize]
    new = store[:, :, :, slots].double(), there[:, :, :, slots]
    assert (new[0] - new[1]).norm() / new[1].norm() < LOSS[quantize]
    untouched = torch.ones(SLOTS, dtype=torch.bool).index_fill(0, torch.tensor(slots), False)
    assert torch.equal(
        store[:, :, :, untouched].double().nan_to_num(), there[:, :, :, untouched].nan_to_num()
    )


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_row_hangs_neither_on_the_rows_beside_it_nor_on_threads(
    kernels: Kernels, quantize: Quantize
) -> None:
    network, rows = Network.random(6, 2, 32), 13
    step = network.in_kernels(kernels, quantize)
    dice = torch.Generator().manual_seed(2)
    store = torch.randn(LAYERS, 2, 2, SLOTS, 32, generator=dice).bfloat16()
    hidden, angles = torch.randn(rows, WIDTH, generator=dice), torch.rand(rows, 16, generator=dice)
    turns = torch.polar(torch.ones_like(angles), angles)
    ends = torch.arange(rows) * 50 + 40
    before, found = torch.get_num_threads(), []
    for threads, each in ((1, 1), (1, rows), (3, rows)):
        torch.set_num_threads(threads)
        parts = []
        for some in torch.arange(rows).split(each):
            seen = looks([(row, int(ends[at]) - 40, int(ends[at])) for row, at in enumerate(some)])
            parts.append(step(hidden[some], turns[some], store.clone(), ends[some] - 1, seen))
        found.append(torch.cat(parts))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
