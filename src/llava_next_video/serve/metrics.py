"""Figures for Prometheus, under the names that dashboards for vLLM look for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llava_next_video.engine import Load, Output

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
LONG = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


class Metrics:
    """Counts what happens; `text` prints it all.

    Names that begin with `vllm:` mean what they mean there; those with `lnv:` are ours.
    """

    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._model = model_name
        self.media_queries = self._counter("vllm:mm_cache_queries", "Media that were looked for")
        self.media_hits = self._counter("vllm:mm_cache_hits", "Media that were there already")
        self._success = Counter(
            "vllm:request_success", "Answers", ["model_name", "finished_reason"], registry=self._registry
        )
        self._first = self._histogram("vllm:time_to_first_token_seconds", "To the first token", SECONDS)
        self._between = self._histogram("vllm:inter_token_latency_seconds", "Between two tokens", SECONDS)
        self._whole = self._histogram("vllm:e2e_request_latency_seconds", "Of a whole answer", LONG)
        self._queued = self._histogram("vllm:request_queue_time_seconds", "In the engine's queue", LONG)
        self._prefill = self._histogram("vllm:request_prefill_time_seconds", "Of the prompt", LONG)
        self._decode = self._histogram("vllm:request_decode_time_seconds", "Of the words", LONG)
        self._prompt = self._histogram("vllm:request_prompt_tokens", "Tokens of a prompt", TOKENS)
        self._generated = self._histogram("vllm:request_generation_tokens", "Tokens of an answer", TOKENS)
        self.decode_seconds = self._histogram("lnv:media_decode_seconds", "Of fetching and decoding", LONG)
        self.frames = self._counter("lnv:media_frames", "Frames and pictures that were decoded")
        self.media_errors = self._counter("lnv:media_errors", "Media that could not be read")
        self.http = Counter(
            "lnv:http_requests", "Answers of the server", ["route", "status"], registry=self._registry
        )

    def watch(self, load: Callable[[], Load], media: Callable[[], tuple[int, int]]) -> None:
        """Also print the engine's figures, and the decoders at work with the bytes of frames held."""
        self._registry.register(_Watched(self._model, load, media))

    def text(self) -> bytes:
        """The page for Prometheus; asks the engine, which answers between two steps."""
        return generate_latest(self._registry)

    def first(self, seconds: float) -> None:
        """An answer has its first token."""
        self._first.observe(seconds)

    def between(self, seconds: float, tokens: int) -> None:
        """So many tokens came so long after those before."""
        for _ in range(tokens):
            self._between.observe(seconds / tokens)

    def abandoned(self) -> None:
        """Nobody waits for an answer any more."""
        self._success.labels(self._model, "abort").inc()

    def finished(self, output: Output, reason: str) -> None:
        """An answer is over; `output` is its last."""
        self._success.labels(self._model, reason).inc()
        at = output.timings
        if at.finished_s is None or at.started_s is None:
            return
        self._whole.observe(at.finished_s - at.arrived_s)
        self._queued.observe(at.started_s - at.arrived_s)
        if at.first_token_s is not None:
            self._prefill.observe(at.first_token_s - at.started_s)
            self._decode.observe(at.finished_s - at.first_token_s)
        self._prompt.observe(output.prompt_tokens)
        self._generated.observe(output.completion_tokens)

    def _counter(self, name: str, told: str) -> Counter:
        return Counter(name, told, ["model_name"], registry=self._registry).labels(self._model)

    def _histogram(self, name: str, told: str, buckets: tuple[float | int, ...]) -> Histogram:
        whole = Histogram(name, told, ["model_name"], registry=self._registry, buckets=buckets)
        return whole.labels(self._model)


class _Watched(Collector):
    """Figures that somebody else counts."""

    def __init__(
        self, model_name: str, load: Callable[[], Load], media: Callable[[], tuple[int, int]]
    ) -> None:
        self._model = model_name
        self._load = load
        self._media = media

    def collect(self) -> Iterable[Metric]:
        """The engine's figures, and the decoders'."""
        load, (decoders, held) = self._load(), self._media()
        gauges = {
            "vllm:num_requests_running": load.running,
            "vllm:num_requests_waiting": load.waiting,
            "vllm:kv_cache_usage_perc": load.pages_used / load.pages if load.pages else 0.0,
            "lnv:pages_cached": load.pages_cached,
            "lnv:features_in_use": load.features_in_use,
            "lnv:feature_bytes_idle": load.feature_bytes_idle,
            "lnv:decoders_busy": decoders,
            "lnv:frame_bytes_held": held,
        }
        counters = {
            "vllm:prompt_tokens": load.prompt_tokens,
            "vllm:generation_tokens": load.generated_tokens,
            "vllm:prefix_cache_queries": load.prompt_tokens,
            "vllm:prefix_cache_hits": load.cached_tokens,
            "vllm:num_preemptions": load.preemptions,
            "lnv:vision_frames": load.frames,
        }
        for name, value in gauges.items():
            yield self._named(GaugeMetricFamily(name, name, labels=["model_name"]), value)
        for name, value in counters.items():
            yield self._named(CounterMetricFamily(name, name, labels=["model_name"]), value)

    def _named(self, family: GaugeMetricFamily | CounterMetricFamily, value: float | int) -> Metric:
        family.add_metric([self._model], value)
        return family
