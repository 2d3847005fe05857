"""The benchmarks that there are: a file each, and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from llava_next_video.errors import ConfigError
from llava_next_video.evaluate.benchmark import Benchmark, Protocol
from llava_next_video.evaluate.benchmarks import (
    egoschema,
    mvbench,
    nextqa,
    openqa,
    perceptiontest,
    videochatgpt,
    videomme,
)

BENCHMARKS: Mapping[str, Benchmark] = {
    one.name: one
    for one in (
        videomme.BENCHMARK,
        mvbench.BENCHMARK,
        nextqa.BENCHMARK,
        egoschema.BENCHMARK,
        perceptiontest.BENCHMARK,
        openqa.ACTIVITYNET,
        openqa.MSRVTT,
        openqa.MSVD,
        openqa.TGIF,
        videochatgpt.GENERIC,
        videochatgpt.TEMPORAL_ORDER,
        videochatgpt.CONSISTENT,
        videochatgpt.DESCRIBED,
    )
}


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: There is none.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def protocol_named(benchmark: Benchmark, name: str | None) -> Protocol:
    """The protocol of a benchmark of that name, or its first.

    Raises:
        ConfigError: It has none of that name.
    """
    protocols = {protocol.name: protocol for protocol in benchmark.protocols}
    if name is None:
        return benchmark.protocols[0]
    if name not in protocols:
        raise ConfigError(f"{benchmark.name} has no protocol {name!r}; its protocols: {', '.join(protocols)}")
    return protocols[name]
