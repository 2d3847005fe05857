"""The parts of an engine put together for a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from llava_next_video.engine.attention_cpu import CpuAttention
from llava_next_video.engine.build import Parts
from llava_next_video.engine.decoder import Attend
from llava_next_video.engine.graphs import DecodeGraphs, Replay, graph_sizes
from llava_next_video.engine.memory import stored_dtype
from llava_next_video.engine.runner import Runner, turns_for
from llava_next_video.engine.scheduler import Chunk

_STRETCHED = 4
"""Page tables on a GPU, which lie there, have room for contexts stretched so many times."""


def longest_request(parts: Parts, *, pages: int) -> int | None:
    """Tokens of one request at most, whatever scaling it asks for; None: as many as the scaling holds."""
    decoder, settings = parts.decoder, parts.settings
    if settings.context is not None or decoder.device.type == "cpu":
        return settings.context
    return min(_STRETCHED * decoder.context, pages * settings.page_tokens)


def assembled(parts: Parts, *, pages: int) -> Runner:
    """What runs the steps, over so many pages of keys and values.

    Raises:
        ConfigError: The device needs a package that is missing.
    """
    return _on_cpu(parts, pages) if parts.decoder.device.type == "cpu" else on_gpu(parts, pages=pages)


def on_gpu(
    parts: Parts, *, pages: int, record: Callable[[Callable[[], Tensor]], Replay] | None = None
) -> Runner:
    """The runner of a GPU; on a CPU, in tests, Triton interprets its kernels and `record` stands for graphs.

    Raises:
        ConfigError: Triton is missing, or its kernels cannot compute this network.
    """
    from llava_next_video.engine.attention_cuda import CudaAttention  # needs Triton, which a CPU has not
    from llava_next_video.engine.kernels.fused import turns_of

    decoder, settings = parts.decoder, parts.settings
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
        context=longest_request(parts, pages=pages) or decoder.context,
        store_dtype=stored_dtype(settings, decoder.dtype),
    )

    def turning_rows(rows: int) -> Attend:
        rope, where = decoder.rope, attention.positions[:rows]
        turns = turns_of(where, attention.ropes[:rows], rope.frequencies, rope.strengths)
        return partial(attention.attend, turns=turns)

    def turning(chunks: Sequence[Chunk], ropes: Sequence[int]) -> Attend:
        return turning_rows(sum(chunk.count for chunk in chunks))

    def compute(ids: Tensor) -> Tensor:
        return decoder.logits(decoder.forward(decoder.embed(ids), None, turning_rows(len(ids))))

    graphs = None
    if settings.graphs:
        graphs = DecodeGraphs(compute, attention, most=most, device=decoder.device, record=record)
    return Runner(decoder, attention, parts.sampler, parts.batched, turning=turning, graphs=graphs)


def _on_cpu(parts: Parts, pages: int) -> Runner:
    decoder, settings = parts.decoder, parts.settings
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
    step = decoder.whole_step

    def turning(chunks: Sequence[Chunk], ropes: Sequence[int]) -> Attend:
        return partial(attention.attend, turns=turns_for(decoder, chunks, ropes))

    def whole(hidden: Tensor, turns: Tensor, chunks: Sequence[Chunk]) -> Tensor:
        assert step is not None
        return step(hidden, turns, attention.store, *attention.places(chunks))

    return Runner(
        decoder,
        attention,
        parts.sampler,
        parts.batched,
        turning=None if decoder.kernels is None else turning,
        whole=None if step is None else whole,
    )
