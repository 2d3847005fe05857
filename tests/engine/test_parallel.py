"""Shares of a network add up to the whole; here they are threads of one process."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
import torch
from tests.engine.conftest import tiny
from tests.engine.kernels.conftest import request_on
from tests.engine.test_steptable import PAGE, ROOM, seen, small_table
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig

from llava_next_video.engine import Engine, EngineSettings
from llava_next_video.engine.assembly import layers_of, whole_step
from llava_next_video.engine.build import build, built_decoder
from llava_next_video.engine.followers import refuse_shared
from llava_next_video.engine.linear import linear
from llava_next_video.engine.memory import estimate
from llava_next_video.engine.native import Kernels
from llava_next_video.engine.parallel import WHOLE, Share, Summed
from llava_next_video.engine.scheduler import Chunk
from llava_next_video.engine.settings import SUITED
from llava_next_video.engine.telling import Listener, Place, Teller, Told
from llava_next_video.engine.weights import LoadedWeights
from llava_next_video.errors import ConfigError
from llava_next_video.model import LlavaNextVideoConfig
from llava_next_video.model.weights import skeleton

SETTINGS = EngineSettings(dtype="float32", max_requests=4, page_tokens=4)


class Together:
    """Adds up over threads, and counts how often."""

    def __init__(self, count: int) -> None:
        self.sums = 0
        self._all_here = Barrier(count, timeout=30)
        self._parts: list[Tensor] = [torch.empty(0)] * count

    def share(self, rank: int) -> Share:
        def add_up(tensor: Tensor) -> None:
            self._parts[rank] = tensor.clone()
            self._all_here.wait()
            tensor.copy_(torch.stack(self._parts).sum(0))
            self.sums += rank == 0
            self._all_here.wait()

        return Share(rank=rank, count=len(self._parts), add_up=add_up)

    def each(self, work: Callable[[Share], Tensor]) -> list[Tensor]:
        """What the work gives with each share."""

        def worked(rank: int) -> Tensor:
            with torch.inference_mode():
                return work(self.share(rank))

        with ThreadPoolExecutor(len(self._parts)) as threads:
            return list(threads.map(worked, range(len(self._parts))))


def dense(out: int, width: int) -> nn.Linear:
    torch.manual_seed(out)
    return nn.Linear(width, out)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_of_what_comes_out_lie_behind_one_another(count: int) -> None:
    module, x = dense(24, 10), torch.randn(3, 10)
    parts = [Share(rank=rank, count=count).by_output(module) for rank in range(count)]
    found = torch.cat([x @ weight.T + bias for weight, bias in parts if bias is not None], dim=1)
    torch.testing.assert_close(found, module(x).detach())


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_parts_of_what_comes_in_add_up_and_the_bias_counts_once(count: int, bias: bool) -> None:
    module, x = dense(10, 24), torch.randn(3, 24)
    if not bias:
        module.bias = None  # type: ignore[assignment]
    before = torch.randn(3, 10)

    def work(share: Share) -> Tensor:
        weight, offset = share.by_input(module)
        product = share.summed(linear([weight], [offset], "none"))
        return product.onto(x.chunk(share.count, 1)[share.rank].clone(), before.clone())

    together = Together(count)
    for found in together.each(work):
        torch.testing.assert_close(found, before + module(x).detach())
    assert together.sums == (count > 1)


def test_nobody_waits_for_others_who_has_everything() -> None:
    product = linear([torch.ones(2, 2)], [None], "none")
    assert WHOLE.summed(product) is product
    with pytest.raises(TypeError, match="a norm stands before a product that is summed"):
        Summed(product, lambda tensor: None).after_norm(torch.ones(1, 2), torch.ones(2), 1e-5)


def layers(model: Any, settings: EngineSettings, share: Share = WHOLE) -> Tensor:
    """Hidden states of the last tokens of two requests after all layers, the first of which goes on."""
    forward = layers_of(
        built_decoder(model, LoadedWeights(consume=False), settings, share), settings, pages=16
    )
    between, width = forward.decoder.between, forward.decoder.width
    generator = torch.Generator().manual_seed(3)
    first = Place(id_and_index=(1, 0), pages=[4, 5, 6, 7])
    second = Place(id_and_index=(2, 0), pages=[9, 2])

    def step(*chunks: tuple[Place, int, int]) -> Tensor:
        told = [Told(request=of, start=start, count=count, samples=True) for of, start, count in chunks]
        tokens = sum(one.count for one in told)
        embedded = torch.randn(tokens, width, generator=generator).to(between)
        return forward(told, [0] * len(told), embedded)

    step((first, 0, 9))
    return torch.cat([step((first, 9, 1), (second, 0, 5)), step((first, 10, 1), (second, 5, 1))])


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("llama", {"attention_bias": True}),
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"num_attention_heads": 8}),
    ],
)
def test_two_shares_compute_what_one_decoder_computes_in_two_sums_a_layer(
    family: str, text: dict[str, Any]
) -> None:
    model, together = tiny(family, text=text), Together(2)
    with torch.inference_mode():
        whole = layers(model, SETTINGS)
    for found in together.each(lambda share: layers(model, SETTINGS, share)):
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    steps, of_layers = 3, model.config.text_config.num_hidden_layers
    assert together.sums == steps * 2 * of_layers


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("quantize", "dtype", "loss"), [("int8", "auto", 0.06), ("none", "bfloat16", 0.04)])
def test_shares_lose_no_more_to_rounding_than_the_whole(
    model: Any, request: pytest.FixtureRequest, native: bool, quantize: Any, dtype: Any, loss: float
) -> None:
    if native:
        request.getfixturevalue("kernels")
    settings = replace(SETTINGS, native=native, quantize=quantize, dtype=dtype)
    with torch.inference_mode():
        exact, whole = layers(model, SETTINGS), layers(model, settings).float()
    scale = exact.norm()
    assert (whole - exact).norm() / scale < loss
    one, other = Together(2).each(lambda share: layers(model, settings, share))
    assert torch.equal(one, other)
    assert (one.float() - exact).norm() / scale < loss


def test_a_share_keeps_its_part_of_the_weights_and_nothing_of_the_rest(model: Any) -> None:
    def weights(share: Share) -> list[Tensor]:
        decoder = built_decoder(model, LoadedWeights(consume=False), SETTINGS, share)
        products = [one for layer in decoder.layers for one in layer.products]
        return [getattr(one, "part", one).turned for one in products]

    whole, half = weights(WHOLE), weights(Share(rank=1, count=2))
    assert [one.numel() for one in half] == [one.numel() // 2 for one in whole]
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in half)


def test_a_share_is_not_computed_in_one_call(model: Any, kernels: Kernels) -> None:
    settings = replace(SETTINGS, dtype="bfloat16", native=True)
    for share, whole in ((WHOLE, True), (Share(rank=0, count=2), False)):
        parts = build(model, LoadedWeights(consume=False), settings, None, share)
        assert (whole_step(parts.decoder, parts.words) is not None) is whole


def test_followers_know_the_pages_of_every_step() -> None:
    dice = random.Random(5)
    teller, listener = Teller(3), Listener()
    theirs, ours = small_table(shared_from=PAGE), small_table(shared_from=PAGE)
    requests = [request_on([10 * number], number) for number in range(5)]
    for _ in range(200):
        chosen = dice.sample(requests, dice.randint(1, 3))
        for request in chosen:
            if len(request.pages) == ROOM or dice.random() < 0.1:  # sent back to wait, and here again
                request.pages = [dice.randrange(500)]
            elif dice.random() < 0.6:
                request.pages.append(dice.randrange(500))
        chunks = [Chunk(request=r, start=len(r.pages) * PAGE - 2, count=dice.randint(1, 2)) for r in chosen]
        heard = listener.stretches(teller.pieces(chunks))
        assert [(one.request.pages, one.start, one.count) for one in heard] == [
            (chunk.request.pages, chunk.start, chunk.count) for chunk in chunks
        ]
        assert seen(theirs, theirs.fill(heard)) == seen(ours, ours.fill(chunks))


def test_a_step_that_goes_on_is_told_in_few_bytes() -> None:
    chunks: Sequence[Chunk] = [
        Chunk(request=request_on(list(range(2000)), number), start=31999, count=1) for number in range(64)
    ]
    teller = Teller(64)
    first, again = (len(pickle.dumps(teller.pieces(chunks))) for _ in range(2))
    assert again < 64 * 32 < first


def test_a_share_of_a_34b_needs_its_part_of_the_memory() -> None:
    text = LlamaConfig(
        vocab_size=64064,
        hidden_size=7168,
        intermediate_size=20480,
        num_hidden_layers=60,
        num_attention_heads=56,
        num_key_value_heads=8,
    )
    model = skeleton(LlavaNextVideoConfig(CLIPVisionConfig(), text))
    whole, half = (estimate(model, replace(SUITED["cuda"], tensor_parallel=count)) for count in (1, 2))
    # Queries and what attention gives, keys and values, three of the MLP; two bytes each, half of them gone.
    products = 60 * (2 * 7168 * 7168 + 2 * 7168 * 8 * 128 + 3 * 7168 * 20480)
    assert whole.weights - half.weights == products
    assert half.kv == whole.kv // 2


def test_what_cannot_be_shared_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlavaNextVideoConfig(**model.config.to_dict())
    refuse_shared(config, replace(SETTINGS, tensor_parallel=2))
    with pytest.raises(ConfigError, match="num_key_value_heads is 2, which 4 devices cannot share evenly"):
        refuse_shared(config, replace(SETTINGS, tensor_parallel=4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="tensor_parallel is 2, and GPUs there are 1"):
        refuse_shared(config, replace(SETTINGS, tensor_parallel=2, device="cuda"))
    with pytest.raises(ConfigError, match=r"the first 2 GPUs, and device is cuda:1; leave it out"):
        refuse_shared(config, replace(SETTINGS, tensor_parallel=2, device="cuda:1"))
    with pytest.raises(ConfigError, match="tensor_parallel is 0; it must be at least 1"):
        EngineSettings(tensor_parallel=0)
    with pytest.raises(ConfigError, match=r"shares are read from a folder; take Engine\.from_folder"):
        Engine.from_model(model, replace(SETTINGS, tensor_parallel=2))
