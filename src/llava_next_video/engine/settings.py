"""How much the engine may use, and in what precision."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast, get_args

from llava_next_video.errors import ConfigError

DType = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["none", "int8", "int4", "fp8"]
KeysAndValues = Literal["auto", "fp8"]
FewRows = Literal["measured", "torch", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits and choices of one engine.

    Attributes:
        token_budget: Tokens that one step computes at most; a long prompt is cut into chunks of this size.
        frame_budget: Frames and tiles that one step sends through the vision tower at most.
        max_requests: Requests that run together at most.
        max_waiting: Requests that may wait; the next one is refused with `CapacityError`.
        page_tokens: Tokens of one page of keys and values.
        kv_bytes: Memory for keys and values; None: 2 GiB on a CPU, on a GPU what weights and the largest step
            leave free.
        feature_bytes: Memory for visual features of media that nobody uses at the moment.
        context: Tokens of one request at most; None: what the checkpoint was made for.
        dtype: Precision of weights and activations. `auto`: bfloat16 on a GPU, and on a processor with
            instructions for it, where it is faster; else float32.
        quantize: `int8` on a CPU: 8-bit weights and activations (a scale per weight row and per token) in all
            matrix products of the decoder and the vision tower. On a GPU, in the decoder only: `fp8` weights
            and activations, or `int8` and `int4` weights with activations as they are.
        kv_dtype: Precision of stored keys and values. `auto`: that of the weights, bfloat16 where C++ kernels
            compute in 8 bits. `fp8`, on a GPU: 8 bits with a scale for each token and head, so that twice as
            many tokens fit.
        device: Where the weights live, as torch spells it.
        share_prefixes: Reuse the pages of requests that begin alike, and attend to shared pages as a group
            (each for itself in a step that C++ kernels compute in one call).
        ahead: Start the next step before the tokens of the last one are known here; None: on a GPU. An output
            then comes a step later.
        few_rows: On a GPU, who multiplies up to 16 rows with weights as they are. `measured`: torch or a
            kernel of ours, whichever is faster for the size; `torch` or `own`: always that one, so that
            rounding is the same in every process.
        native: On a CPU, compute with kernels in C++ what is in bfloat16 or 8 bits, and keep in float32 what
            lies between products; they are compiled when first used. None: where there are a compiler and a
            processor with AVX512-BF16 and VNNI.
        graphs: On a GPU, replay steps that only generate as one recorded graph.
        tensor_parallel: Processes that share the text layers, this one included; each has a GPU of its
            own, or all the CPU. They wait for each other twice in a layer, so that steps are neither recorded
            (`graphs`) nor computed in one call. Other limits are those of each process.
    """

    token_budget: int = 512
    frame_budget: int = 8
    max_requests: int = 64
    max_waiting: int = 1024
    page_tokens: int = 16
    kv_bytes: int | None = None
    feature_bytes: int = 512 * 1024**2
    context: int | None = None
    dtype: DType = "auto"
    quantize: Quantize = "none"
    kv_dtype: KeysAndValues = "auto"
    device: str = "cpu"
    share_prefixes: bool = True
    ahead: bool | None = None
    few_rows: FewRows = "measured"
    native: bool | None = None
    graphs: bool = True
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        for name in (
            "token_budget",
            "frame_budget",
            "max_requests",
            "max_waiting",
            "page_tokens",
            "kv_bytes",
            "tensor_parallel",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if self.feature_bytes < 0:
            raise ConfigError(f"feature_bytes is {self.feature_bytes}; it must not be negative")
        if self.context is not None and self.context < 2:
            raise ConfigError(f"context is {self.context}; it must be at least 2 tokens")
        if self.token_budget < self.max_requests:
            raise ConfigError(
                f"token_budget {self.token_budget} is less than max_requests {self.max_requests}; every "
                "running request needs one token a step"
            )
        for name, choices in (
            ("dtype", DType),
            ("quantize", Quantize),
            ("kv_dtype", KeysAndValues),
            ("few_rows", FewRows),
        ):
            known = get_args(choices)
            if getattr(self, name) not in known:
                raise ConfigError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")


SUITED: Mapping[str, EngineSettings] = MappingProxyType(
    {
        "cpu": EngineSettings(),
        "cuda": EngineSettings(
            device="cuda",
            token_budget=8192,
            frame_budget=256,
            max_requests=256,
            feature_bytes=4 * 1024**3,
        ),
    }
)
"""Limits that suit each kind of device, by its name in torch."""


def read_quantize(name: str | None, *, others: tuple[str, ...] = ()) -> Quantize:
    """The quantisation of that name; None is none.

    Raises:
        ConfigError: It is none that we know; `others`, which the caller has read, are named beside ours.
    """
    ours: tuple[Quantize, ...] = get_args(Quantize)[1:]
    for known in ours:
        if name == known:
            return known
    if name is not None:
        raise ConfigError(f"unknown quantisation {name!r}; known: {', '.join((*ours, *others))}")
    return "none"


def read_kv_dtype(name: str | None) -> KeysAndValues:
    """The precision of stored keys and values of that name; None is that of the weights.

    Raises:
        ConfigError: It is none that we know.
    """
    for known in get_args(KeysAndValues):
        if name == known:
            return cast(KeysAndValues, known)
    if name is not None:
        raise ConfigError(f"unknown kv_dtype {name!r}; known: {', '.join(get_args(KeysAndValues))}")
    return "auto"
