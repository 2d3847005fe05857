"""The kernels as functions of tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor, nn

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_INPUT = (
    *(_INT, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
    *(_FLOAT, _LONG, _LONG, _INT),
)
_ARGUMENTS = {
    "attend": (
        *(_INT, _INT, _INT, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _LONG, _LONG, _POINTER, _POINTER),
        *(_LONG, _LONG, _LONG, _LONG, _LONG, _FLOAT, _LONG, _INT),
    ),
    "attend_alone": (
        *(_INT, _POINTER, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _POINTER),
        *(_LONG, _LONG, _LONG, _FLOAT, _INT),
    ),
    "quantise": (*_INPUT, _POINTER, _POINTER, _INT),
    "settle": (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _INT, _INT, _POINTER, _INT),
    "few": (*_INPUT, _POINTER, _POINTER, _POINTER, _POINTER, _LONG, _INT, _POINTER, _INT),
}


class Kind(IntEnum):
    """What happens to numbers before they are rounded; the order is that of `products.hpp`."""

    PLAIN = 0
    LAYER_NORM = 1
    RMS_NORM = 2
    SILU = 3
    GELU_TANH = 4
    GATED_SILU = 5


@dataclass(frozen=True, slots=True)
class Raw:
    """Rows of numbers, each worth the `unit` of its row, plus a bias for each column."""

    numbers: Float[Tensor, "rows width"]
    unit: Float[Tensor, " rows"] | None = None
    bias: Float[Tensor, " width"] | None = None

    def shape(self, kind: Kind) -> tuple[int, int]:
        """Rows and columns after what happens to the numbers."""
        rows, width = self.numbers.shape
        return rows, width // 2 if kind is Kind.GATED_SILU else width


@dataclass(frozen=True, slots=True)
class Norm:
    """A layer norm, or an RMS norm if there is no offset."""

    weight: Float[Tensor, " width"]
    epsilon: float
    offset: Float[Tensor, " width"] | None = None

    @property
    def arguments(self) -> tuple[int, int | None, float]:
        """What a kernel wants to know of it."""
        return self.weight.data_ptr(), _address(self.offset), self.epsilon

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> Norm:
        """That of a module."""
        return cls(norm.weight.float(), norm.eps, norm.bias.float())


class Rows8:
    """8-bit weights as the kernel for a few rows wants them, with the sum of each row."""

    def __init__(
        self,
        rows: Int8[Tensor, "out width"],
        scale: Float[Tensor, " out"],
        bias: Float[Tensor, " out"] | None,
    ) -> None:
        self.rows, self.scale, self.bias = rows.contiguous(), scale, bias
        self.sums = rows.sum(dim=1, dtype=torch.int32)
        self.count = rows.shape[0]
        self.addresses = tuple(_address(part) for part in (self.rows, scale, self.sums, bias))
        """Where they lie: asked for so often that it is worth keeping."""


class Kernels:
    """Calls into the library; the caller sees to shapes and kinds of numbers.

    Rows of numbers are contiguous. All run on as many threads as torch.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, kinds in _ARGUMENTS.items():
            call = getattr(library, name)
            call.argtypes, call.restype = kinds, None
        self._library = library

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        causal: bool = False,
        sums: bool = True,
        wide: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention in bfloat16, and for each row and head the log of its sum.

        Args:
            queries: Tokens x heads x width, in float32 or bfloat16; the last dimension lies in a row.
            keys: Key heads x keys x width, in bfloat16 or as the queries; groups of heads share a key head.
            values: The same, lying as the keys do.
            causal: The last token sees all keys, each one before it one less; otherwise all see all.
            sums: Give the logs.
            wide: Give float32 whatever the queries are in.
        """
        rows, heads, width = queries.shape
        key_heads, count, _ = keys.shape
        out = torch.empty((rows, heads, width), dtype=torch.float32 if wide else queries.dtype)
        logs = torch.empty(rows, heads) if sums else None
        self._library.attend(
            queries.dtype is torch.float32,
            keys.dtype is torch.float32,
            out.dtype is torch.float32,
            queries.data_ptr(),
            *(queries.stride(0), queries.stride(1)),
            keys.data_ptr(),
            values.data_ptr(),
            *(keys.stride(1), keys.stride(0)),
            out.data_ptr(),
            _address(logs),
            *(rows, count, key_heads, heads // key_heads, width),
            width**-0.5,
            rows - 1 if causal else -1,
            torch.get_num_threads(),
        )
        return out, logs

    def attend_alone(
        self,
        queries: Float[Tensor, "tokens heads width"],
        store: Float[Tensor, "2 key_heads slots width"],
        looks: Int[Tensor, "rows 3"],
    ) -> Float[Tensor, "rows heads width"]:
        """Attention of single tokens, each to slots in a row: (token, first slot, end).

        The store is in bfloat16.
        """
        _, heads, width = queries.shape
        _, key_heads, slots, _ = store.shape
        queries = queries.contiguous()
        out = torch.empty((len(looks), heads, width), dtype=queries.dtype)
        self._library.attend_alone(
            queries.dtype is torch.float32,
            queries.data_ptr(),
            store[0].data_ptr(),
            store[1].data_ptr(),
            slots,
            looks.data_ptr(),
            len(looks),
            out.data_ptr(),
            *(key_heads, heads // key_heads, width),
            width**-0.5,
            torch.get_num_threads(),
        )
        return out

    def quantise(
        self, raw: Raw, kind: Kind, zero_point: int, norm: Norm | None = None
    ) -> tuple[UInt8[Tensor, "rows width"], Float[Tensor, " rows"]]:
        """Rows in unsigned 8 bits and what a step of each is worth, after what `kind` says."""
        rows, width = raw.shape(kind)
        out, unit = torch.empty((rows, width), dtype=torch.uint8), torch.empty(rows)
        self._library.quantise(
            *_input(raw, kind, zero_point, norm), out.data_ptr(), unit.data_ptr(), torch.get_num_threads()
        )
        return out, unit

    def settle(self, raw: Raw, out: Float[Tensor, "rows width"], *, add: bool = False) -> Tensor:
        """The numbers that `raw` stands for, in `out` (float32 or bfloat16), or added to it."""
        assert out.is_contiguous()
        assert out.shape == raw.numbers.shape
        self._library.settle(
            raw.numbers.data_ptr(),
            _address(raw.unit),
            _address(raw.bias),
            *raw.numbers.shape,
            add,
            out.dtype is torch.float32,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def few(
        self,
        raw: Raw,
        kind: Kind,
        zero_point: int,
        norm: Norm | None,
        weights: Rows8,
        out: Float[Tensor, "rows out"],
        *,
        add: bool = False,
    ) -> Float[Tensor, "rows out"]:
        """The product of a few rows, rounded as `quantise` rounds them, in `out`, or added to it."""
        assert out.is_contiguous()
        assert out.dtype is torch.float32
        self._library.few(
            *_input(raw, kind, zero_point, norm),
            *weights.addresses,
            weights.count,
            add,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out


def looks(alone: Sequence[tuple[int, int, int]]) -> Int[Tensor, "rows 3"]:
    """What single tokens look at, as `attend_alone` wants it."""
    return torch.tensor(alone, dtype=torch.int64).view(-1, 3)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _input(raw: Raw, kind: Kind, zero_point: int, norm: Norm | None) -> tuple[int | float | None, ...]:
    assert raw.numbers.is_contiguous()
    assert raw.numbers.dtype is torch.float32
    return (
        *(int(kind), raw.numbers.data_ptr(), _address(raw.unit), _address(raw.bias)),
        *((None, None, 0.0) if norm is None else norm.arguments),
        *raw.shape(kind),
        zero_point,
    )
