"""Attention on a GPU, over pages that are read where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from llava_next_video.engine.kernels.generating import attend_generating
from llava_next_video.engine.kernels.launch import Launch
from llava_next_video.engine.kernels.paged import attend_paged
from llava_next_video.engine.kernels.store import LayerPages, gather, store
from llava_next_video.engine.memory import FP8
from llava_next_video.engine.plan import FIELDS, Field, Plan
from llava_next_video.engine.prefill import chosen_prefill, flash, sdpa
from llava_next_video.engine.steptable import StepTable
from llava_next_video.engine.stretch import Stretch
from llava_next_video.engine.transfer import Sender
from llava_next_video.errors import ConfigError

_FP8_CAPABILITY = (8, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphKey:
    """Steps with equal keys launch the same kernels: one captured graph serves them all."""

    rows: int
    shared: int
    shared_rows: int
    few: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Few:
    """Up to where rows that generate apart take one launch a layer, and not three.

    For one row and some hundred tokens that saves 5 % of a step of a 7B; for 8 rows and 1,216 tokens each it
    costs 15 % (docs/log.md). Between them nothing was measured: by those figures both are even at some
    1,000 tokens, and 512 stay on the safe side.

    Attributes:
        rows: Of a step.
        tokens: That they look at, all together.
    """

    rows: int = 2
    tokens: int = 512


class CudaAttention:
    """Keys and values of all layers on a GPU, and attention to them.

    `begin` writes what is new for a step into buffers that never move; `attend` then launches kernels whose
    grids do not depend on lengths. So a step of one token for each request can be captured in a CUDA graph
    and replayed:

    - `begin(chunks, padded=N)` outside the graph, before each replay, on the stream of the replay. Rows
      beyond the chunks write to a page of their own and see only themselves; what comes out is finite.
    - `attend` once for each layer inside the capture, with tensors of N rows.
    - `graph_key` after `begin` says which graph fits: one captured under a key serves every step with an
      equal key. `rows` is N; `shared` is 0 unless requests read a common beginning as a company, then a
      power of two, so that there are few keys; `few` says which kernels attend. It is None for steps
      that must not be captured.
    - `positions` are those of all rows, on the GPU, at an address that never changes: slice what is needed.
    - `begin` of the next step may be called while this one still runs.
    - The first `attend` of a kind compiles its kernels: run one step under a key before it is captured.

    With `turns` (see `attend`), queries and keys come before rope, and are turned as they are stored.

    Attributes:
        launch, launch_few: How kernels are launched, those for a few rows that generate apart in one launch.
        few: How many those are.
    """

    def __init__(
        self,
        *,
        windows: Sequence[int | None],
        heads: int,
        key_value_heads: int,
        head_width: int,
        pages: int,
        page_tokens: int,
        dtype: torch.dtype,
        share: bool,
        device: torch.device,
        tokens: int,
        requests: int,
        context: int,
        store_dtype: torch.dtype | None = None,
        long_from: int = 64,
        shared_from: int = 256,
    ) -> None:
        """Reserve the memory.

        Args:
            windows: For each layer how many tokens it looks back; None: all.
            heads, key_value_heads, head_width: Of the network.
            pages: How many pages requests can hold; one more is kept for padding.
            page_tokens: Tokens of one page.
            dtype: Precision of queries and of what comes out.
            share: Read common beginnings once.
            device: The GPU (a CPU in tests, where Triton interprets the kernels).
            tokens: Rows of a step at most, padding included.
            requests: Chunks of a step at most.
            context: Tokens of one request at most.
            store_dtype: Precision of stored keys and values; None: `dtype`. float8_e4m3fn takes half the room
                of bfloat16, with a scale for each token and head.
            long_from: Chunks of at least so many tokens are attended to without pages; shorter ones like
                requests that generate.
            shared_from: Common beginnings of at least so many tokens are read once.

        Raises:
            ConfigError: this GPU or these kernels cannot compute that.
        """
        store_dtype = store_dtype or dtype
        _refuse(device, dtype, store_dtype, heads, key_value_heads)
        self.windows = list(windows)
        self.heads = heads
        self.device = device
        shape = (len(self.windows), 2, pages + 1, key_value_heads, page_tokens, head_width)
        self.store = torch.empty(shape, dtype=store_dtype, device=device)
        self.store[:, :, pages].zero_()
        scales = None
        if store_dtype is FP8:
            scales = torch.ones(shape[:-1], dtype=torch.float32, device=device)
        self._layers = [
            LayerPages(numbers=numbers, scales=None if scales is None else scales[index])
            for index, numbers in enumerate(self.store)
        ]
        self._table = StepTable(
            tokens=tokens,
            requests=requests,
            pages_each=-(-context // page_tokens),
            scratch_page=pages,
            page_tokens=page_tokens,
            group=heads // key_value_heads,
            long_from=long_from,
            shared_from=shared_from if share else None,
        )
        self._sender = Sender(len(self._table.numbers), device)
        held = self._sender.received
        self._tables = held[: self._table.table_numbers].view(requests + 1, -1)
        self._rows = held[self._table.table_numbers :].view(-1, FIELDS)
        self.launch = Launch.on(device, dtype)
        self.launch_few = Launch.for_few(device, dtype, alone=heads == key_value_heads)
        self.few = Few()
        self._arrived = torch.zeros(tokens * key_value_heads, dtype=torch.int32, device=device)
        self.prefill = chosen_prefill(device, dtype)
        self._plan = Plan(rows=0, own=0, own_rows=0)
        self._begins: tuple[Tensor, Tensor] | None = None

    @property
    def positions(self) -> Int32[Tensor, " capacity"]:
        """Where each row of the step stands in its request; a view of numbers that `begin` replaces."""
        return self._rows[:, Field.POSITION]

    @property
    def graph_key(self) -> GraphKey | None:
        """Which captured graph fits the step that began last; None: it cannot be captured."""
        plan = self._plan
        if not plan.apart:
            return None
        return GraphKey(
            rows=plan.rows,
            shared=plan.shared,
            shared_rows=plan.shared_rows if plan.shared else 0,
            few=self._is_few,
        )

    @property
    def _is_few(self) -> bool:
        plan, few = self._plan, self.few
        return plan.apart and not plan.shared and plan.rows <= few.rows and plan.tokens <= few.tokens

    @property
    def ropes(self) -> Int32[Tensor, " capacity"]:
        """How the positions of each row are scaled, as `begin` was told; lies where `positions` lie."""
        return self._rows[:, Field.ROPE]

    def begin(
        self, chunks: Sequence[Stretch], padded: int | None = None, ropes: Sequence[int] | None = None
    ) -> None:
        """Look at the pages of the next step, and send what kernels need to know of it.

        Args:
            chunks: The step.
            padded: Fill it up to so many rows; only steps of one token for each chunk can be.
            ropes: How the positions of each chunk are scaled, as a row of `Decoder.rope`; None: row 0, all.
        """
        self._plan = self._table.fill(chunks, padded, ropes)
        self._sender.send(self._table.numbers, self._table.unsent(self._plan))
        long = self._plan.long
        self._begins = None
        if long is not None:
            ends = slice(len(long.queries) + 1)
            self._begins = (
                self._rows[ends, Field.LONG_QUERIES].contiguous(),
                self._rows[ends, Field.LONG_KEYS].contiguous(),
            )

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "tokens heads width"],
        keys_values: Float[Tensor, "tokens both width"],
        turns: Float[Tensor, "tokens width"] | None = None,
    ) -> Float[Tensor, "tokens heads width"]:
        """Write keys and values (their heads side by side) into their pages, and attend as planned.

        Args:
            layer: Which layer.
            queries, keys_values: Of all rows; those of one row lie one behind the other. What stands in them
                may be lost.
            turns: Cosine and sine of each pair of features in each row, float32, if queries and keys are to
                be turned first.
        """
        plan, pages = self._plan, self._layers[layer]
        if len(queries) != plan.rows:
            raise ValueError(f"{len(queries)} rows of queries, and begin was told of {plan.rows}")
        if self._is_few:
            return attend_generating(
                queries,
                keys_values,
                turns,
                pages,
                self._rows,
                self._tables,
                plan,
                self._arrived,
                window=self.windows[layer],
                launch=self.launch_few,
            )
        store(keys_values, pages, self._rows, self._tables, queries=queries, turns=turns)
        if plan.long is not None and not plan.own:
            return self._attend_long(layer, queries, keys_values)
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        attend_paged(
            queries,
            pages,
            self._rows,
            self._tables,
            plan,
            out,
            window=self.windows[layer],
            launch=self.launch,
        )
        if plan.long is not None:
            out[plan.long.first : plan.long.end] = self._attend_long(layer, queries, keys_values)
        return out

    def _attend_long(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        long, window = self._plan.long, self.windows[layer]
        assert long is not None
        assert self._begins is not None
        queries = queries[long.first : long.end]
        if long.begins:
            keys, values = keys_values[long.first : long.end].chunk(2, dim=1)
        else:
            keys, values = gather(self._layers[layer], self._rows, self._tables, long, queries.dtype)
        if self.prefill == "flash":
            return flash(queries, keys, values, self._begins, long, window)
        return sdpa(queries, keys, values, long, window)


def _refuse(
    device: torch.device, dtype: torch.dtype, store_dtype: torch.dtype, heads: int, key_value_heads: int
) -> None:
    if heads % key_value_heads:
        raise ConfigError(f"{heads} query heads do not divide among {key_value_heads} heads of keys")
    if heads // key_value_heads > 64:
        raise ConfigError(f"{heads // key_value_heads} query heads for each key; the kernels take 64")
    if store_dtype not in (dtype, FP8):
        raise ConfigError(f"keys and values are stored as {dtype} or float8_e4m3fn, not {store_dtype}")
    if (
        store_dtype is FP8
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < _FP8_CAPABILITY
    ):
        raise ConfigError(
            f"{torch.cuda.get_device_name(device)} cannot convert 8-bit floats, as Ada and Hopper GPUs do; "
            "store keys and values in 16 bits"
        )
