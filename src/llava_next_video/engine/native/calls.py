"""The kernels as functions of tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from llava_next_video.engine.native.panels import address
from llava_next_video.engine.native.structs import STRUCTS, BehindStruct, DecoderStruct, ProductStruct

_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_ARGUMENTS = {
    "attend": (
        *(_INT, _INT, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _LONG, _LONG, _POINTER, _POINTER),
        *(_LONG, _LONG, _LONG, _LONG, _LONG, _FLOAT, _LONG, _INT),
    ),
    "attend_alone": (
        *(_INT, _POINTER, _POINTER, _POINTER, _LONG, _POINTER, _LONG, _POINTER),
        *(_LONG, _LONG, _LONG, _FLOAT, _INT),
    ),
    "multiply": (_POINTER, _INT, _POINTER, _LONG, _INT, _INT, _POINTER, _INT),
    "behind": (_POINTER, _INT, _POINTER, _POINTER, _LONG, _INT),
    "place": (_POINTER, _LONG, _LONG, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _LONG, _INT),
    "step": (
        *(_POINTER, _POINTER, _LONG, _POINTER, _POINTER, _POINTER, _LONG),
        *(_POINTER, _LONG, _POINTER, _INT),
    ),
    "slots_read": (_POINTER, _LONG),
}


class Kernels:
    """Calls into the library; the caller sees to shapes and kinds of numbers.

    Rows of numbers are contiguous. All run on as many threads as torch.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, kinds in _ARGUMENTS.items():
            call = getattr(library, name)
            call.argtypes, call.restype = kinds, _LONG if name == "slots_read" else None
        there = list((_LONG * len(STRUCTS)).in_dll(library, "struct_bytes"))
        assert there == [ctypes.sizeof(one) for one in STRUCTS]
        self._library = library

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        causal: bool = False,
        sums: bool = True,
        out: Float[Tensor, "rows heads width"] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention in bfloat16, and for each row and head the log of its sum.

        Args:
            queries: Tokens x heads x width, in float32 or bfloat16; the last dimension lies in a row.
            keys: Key heads x keys x width, in bfloat16 or as the queries; groups of heads share a key head.
            values: The same, lying as the keys do.
            causal: The last token sees all keys, each one before it one less; otherwise all see all.
            sums: Give the logs.
            out: Where to put it, in the precision of the queries; None: somewhere new.
        """
        rows, heads, width = queries.shape
        key_heads, count, _ = keys.shape
        if out is None:
            out = torch.empty((rows, heads, width), dtype=queries.dtype)
        assert out.is_contiguous()
        logs = torch.empty(rows, heads) if sums else None
        self._library.attend(
            queries.dtype is torch.float32,
            keys.dtype is torch.float32,
            queries.data_ptr(),
            *(queries.stride(0), queries.stride(1)),
            keys.data_ptr(),
            values.data_ptr(),
            *(keys.stride(1), keys.stride(0)),
            out.data_ptr(),
            address(logs),
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
        looks: Int[Tensor, "looks 3"],
        rows: int,
    ) -> Float[Tensor, "rows heads width"]:
        """Attention of single tokens, each to slots that lie in rows: (token, first slot, end).

        The looks of a token follow each other, and `rows` tokens have some. What several of them look at is
        read once, which changes no bit. The store is in bfloat16.
        """
        _, heads, width = queries.shape
        _, key_heads, slots, _ = store.shape
        assert width % 2 == 0
        queries = queries.contiguous()
        out = torch.empty((rows, heads, width), dtype=queries.dtype)
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

    def multiply(
        self,
        product: ProductStruct,
        x: Float[Tensor, "rows width"],
        out: Float[Tensor, "rows out"],
        *,
        add: bool = False,
    ) -> Float[Tensor, "rows out"]:
        """The product of each row after what stands before it, in `out`, or added to it."""
        x = x.contiguous()
        assert out.is_contiguous()
        self._library.multiply(
            ctypes.byref(product),
            x.dtype is torch.float32,
            x.data_ptr(),
            len(x),
            out.dtype is torch.float32,
            add,
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out

    def behind(
        self,
        layer: BehindStruct,
        attended: Float[Tensor, "rows heads"],
        hidden: Float[Tensor, "rows width"],
    ) -> Float[Tensor, "rows width"]:
        """What stands behind attention in a layer, in `hidden`, which is in float32."""
        assert attended.is_contiguous()
        assert hidden.is_contiguous()
        assert hidden.dtype is torch.float32
        self._library.behind(
            ctypes.byref(layer),
            attended.dtype is torch.float32,
            attended.data_ptr(),
            hidden.data_ptr(),
            len(hidden),
            torch.get_num_threads(),
        )
        return hidden

    def place(
        self,
        queries: Float[Tensor, "rows heads width"],
        keys_values: Float[Tensor, "rows both width"],
        turns: Complex[Tensor, "rows half"],
        slots: Int[Tensor, " rows"],
        store: Float[Tensor, "2 key_heads slots width"],
    ) -> None:
        """Turn queries and keys in place; put keys and values into their slots of one layer, in bfloat16.

        In each row keys stand behind the queries, and values behind the keys.
        """
        rows, heads, width = queries.shape
        _, key_heads, all_slots, _ = store.shape
        assert keys_values.data_ptr() == queries.data_ptr() + heads * width * queries.element_size()
        assert queries.stride() == ((heads + 2 * key_heads) * width, width, 1)
        assert turns.is_contiguous()
        self._library.place(
            queries.data_ptr(),
            *(rows, heads, key_heads, width),
            *(turns.data_ptr(), slots.data_ptr(), store.data_ptr(), all_slots),
            torch.get_num_threads(),
        )

    def step(
        self,
        decoder: DecoderStruct,
        store: Float[Tensor, "layers 2 key_heads slots head_width"],
        hidden: Float[Tensor, "rows width"],
        turns: Complex[Tensor, "rows half"],
        slots: Int[Tensor, " rows"],
        looks: Int[Tensor, "looks 3"],
        logits: Float[Tensor, "rows vocabulary"],
    ) -> Float[Tensor, "rows vocabulary"]:
        """All layers for rows that each belong to another request; what stands in `hidden` is lost.

        The store is in bfloat16. Keys and values of each row go into its slot before any row looks at slots;
        the looks (row, first slot, end) of a row follow each other, and each row has one. What several rows
        look at is read once, which changes no bit.
        """
        assert hidden.is_contiguous()
        assert turns.is_contiguous()
        self._library.step(
            ctypes.byref(decoder),
            store.data_ptr(),
            store.shape[3],
            hidden.data_ptr(),
            turns.data_ptr(),
            slots.data_ptr(),
            len(hidden),
            looks.data_ptr(),
            len(looks),
            logits.data_ptr(),
            torch.get_num_threads(),
        )
        return logits

    def slots_read(self, looks: Int[Tensor, "looks 3"]) -> int:
        """How many slots `step` reads for each head of the keys, shared ones once; for tests."""
        read: int = self._library.slots_read(looks.data_ptr(), len(looks))
        return read


def looks(alone: Sequence[tuple[int, int, int]]) -> Int[Tensor, "looks 3"]:
    """What single tokens look at, as `attend_alone` and `step` want it."""
    return torch.tensor(alone, dtype=torch.int64).view(-1, 3)
