"""The parts of an engine put together for a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from llava_next_video.engine.attention_cpu import CpuAttention
from llava_next_video.engine.build import Parts
from llava_next_video.engine.decoder import Attend, Decoder
from llava_next_video.engine.forward import Forward, turns_for
from llava_next_video.engine.graphs import DecodeGraphs, Planned, Replay, graph_sizes
from llava_next_video.engine.memory import stored_dtype
from llava_next_video.engine.native import NativeLinear, Norm, WholeLayer, WholeStep
from llava_next_video.engine.runner import Leading, Runner
from llava_next_video.engine.scheduler import Chunk
from llava_next_video.engine.settings import EngineSettings
from llava_next_video.engine.stretch import Stretch
from llava_next_video.engine.words import Words

_STRETCHED = 4
"""Page tables on a GPU, which lie there, have room for contexts stretched so many times."""


def longest_request(decoder: Decoder, settings: EngineSettings, *, pages: int) -> int | None:
    """Tokens of one request at most, whatever scaling it asks for; None: as many as the scaling holds."""
    if settings.context is not None or decoder.device.type == "cpu":
        return settings.context
    return min(_STRETCHED * decoder.context, pages * settings.page_tokens)


def assembled(parts: Parts, *, pages: int, leading: Leading | None = None) -> Runner:
    """What runs the steps, over so many pages of keys and values.

    Args:
        parts: What computes.
        pages: Of keys and values.
        leading: See `Runner`. Steps are then neither recorded nor computed in one call, since between their
            layers the processes wait for each other.

    Raises:
        ConfigError: The device needs a package that is missing.
    """
    if parts.decoder.device.type == "cpu":
        return _on_cpu(parts, pages, leading)
    return on_gpu(parts, pages=pages, leading=leading)


def layers_of(decoder: Decoder, settings: EngineSettings, *, pages: int) -> Forward:
    """The layers alone, over so many pages of keys and values: what a follower computes.

    Raises:
        ConfigError: The device needs a package that is missing.
    """
    if decoder.device.type == "cpu":
        return _layers_on_cpu(decoder, settings, pages)[0]
    return _layers_on_gpu(decoder, settings, pages)[0]


def on_gpu(
    parts: Parts,
    *,
    pages: int,
    record: Callable[[Callable[[], Tensor]], Replay] | None = None,
    leading: Leading | None = None,
) -> Runner:
    """The runner of a GPU; on a CPU, in tests, Triton interprets its kernels and `record` stands for graphs.

    Raises:
        ConfigError: Triton is missing, or its kernels cannot compute this network.
    """
    decoder, words, settings = parts.decoder, parts.words, parts.settings
    forward, attention, turning_rows = _layers_on_gpu(decoder, settings, pages)

    def compute(ids: Tensor) -> Tensor:
        return words.logits(decoder.forward(words.embed(ids), None, turning_rows(len(ids))))

    graphs = None
    if settings.graphs and leading is None:
        most = graph_sizes(settings.max_requests)[-1]
        graphs = DecodeGraphs(compute, attention, most=most, device=decoder.device, record=record)
    return Runner(words, forward, parts.sampler, parts.batched, graphs=graphs, leading=leading)


def _layers_on_gpu(
    decoder: Decoder, settings: EngineSettings, pages: int
) -> tuple[Forward, Planned, Callable[[int], Attend]]:
    from llava_next_video.engine.attention_cuda import CudaAttention  # needs Triton, which a CPU has not
    from llava_next_video.engine.kernels.fused import turns_of

    most = graph_sizes(settings.max_requests)[-1]
    attention = CudaAttention(
        windows=decoder.windows,
        heads=decoder.heads,
        key_value_heads=decoder.key_value_heads,
        head_width=decoder.head_width,
        pages=pages,
        page_tokens=settings.page_tokens,
        dtype=decoder.dtype,
        share=settings.share_prefixes,
        device=decoder.device,
        tokens=max(settings.token_budget, most),
        requests=settings.max_requests,
        context=longest_request(decoder, settings, pages=pages) or decoder.context,
        store_dtype=stored_dtype(settings, decoder.dtype),
    )

    def turning_rows(rows: int) -> Attend:
        rope, where = decoder.rope, attention.positions[:rows]
        turns = turns_of(where, attention.ropes[:rows], rope.frequencies, rope.strengths)
        return partial(attention.attend, turns=turns)

    def turning(chunks: Sequence[Stretch], ropes: Sequence[int]) -> Attend:
        return turning_rows(sum(chunk.count for chunk in chunks))

    return Forward(decoder, attention, turning), attention, turning_rows


def _on_cpu(parts: Parts, pages: int, leading: Leading | None) -> Runner:
    decoder = parts.decoder
    forward, attention = _layers_on_cpu(decoder, parts.settings, pages)
    step = whole_step(decoder, parts.words)

    def whole(hidden: Tensor, turns: Tensor, chunks: Sequence[Chunk]) -> Tensor:
        assert step is not None
        return step(hidden, turns, attention.store, *attention.places(chunks))

    return Runner(
        parts.words,
        forward,
        parts.sampler,
        parts.batched,
        whole=None if step is None else whole,
        leading=leading,
    )


def _layers_on_cpu(decoder: Decoder, settings: EngineSettings, pages: int) -> tuple[Forward, CpuAttention]:
    attention = CpuAttention(
        windows=decoder.windows,
        heads=decoder.heads,
        key_value_heads=decoder.key_value_heads,
        head_width=decoder.head_width,
        pages=pages,
        page_tokens=settings.page_tokens,
        dtype=decoder.store_dtype,
        share=settings.share_prefixes,
        kernels=decoder.kernels,
    )

    def turning(chunks: Sequence[Stretch], ropes: Sequence[int]) -> Attend:
        return partial(attention.attend, turns=turns_for(decoder, chunks, ropes))

    return Forward(decoder, attention, None if decoder.kernels is None else turning), attention


def whole_step(decoder: Decoder, words: Words) -> WholeStep | None:
    """All layers and the head in one call, for steps that only generate.

    None: kernels do not know all of this network, or this process has only a share of it.
    """
    layers = [
        WholeLayer(
            norm=Norm(layer.norm_before_attention, decoder.epsilon),
            heads=layer.query_key_value,
            behind=layer.behind,
        )
        for layer in decoder.layers
        if isinstance(layer.query_key_value, NativeLinear) and layer.behind is not None
    ]
    if not isinstance(words.head, NativeLinear) or len(layers) < len(decoder.layers) or any(decoder.windows):
        return None
    return WholeStep(
        layers,
        Norm(words.norm, words.epsilon),
        words.head,
        heads=decoder.heads,
        key_heads=decoder.key_value_heads,
        head_width=decoder.head_width,
    )
