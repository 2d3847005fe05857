"""Weights on their way from file to file, never all of them in memory.

Knows safetensors files and torch's zip files, nothing about the names of weights.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llava_next_video.errors import CheckpointError

SHARD_BYTES = 2 * 1024**3
CHUNK_BYTES = 16 * 1024**2

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
"""Number formats as safetensors files spell them."""

_DTYPES = {code: dtype for dtype, code in CODES.items()}
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(safetensors|bin)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A tensor that is read when it is written.

    Attributes:
        dtype: Its number format.
        shape: Its sides.
        chunks: Gives its bytes from the first to the last, row by row.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[bytes]]

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    @staticmethod
    def made(dtype: torch.dtype, shape: tuple[int, ...], make: Callable[[], Tensor]) -> Weight:
        """A tensor that a function makes when it is needed."""
        return Weight(dtype=dtype, shape=shape, chunks=lambda: iter([_bytes(make().to(dtype))]))

    def blocks(self) -> Iterator[Tensor]:
        """Its rows, some at a time."""
        width = math.prod(self.shape[1:])
        for chunk in self.chunks():
            yield torch.frombuffer(bytearray(chunk), dtype=self.dtype).view(-1, width)

    def with_rows(self, rows: int) -> Weight:
        """The same matrix with so many rows: those behind are cut off, new ones are the mean of all.

        Source: transformers, `convert_llava_next_video_weights_to_hf.py`, which draws new rows around the
        mean with a hundred-thousandth of the variance; the mean itself is the same file every time.
        """
        have, width = self.shape
        row_bytes = width * self.dtype.itemsize

        def chunks() -> Iterator[bytes]:
            left = min(rows, have) * row_bytes
            for chunk in self.chunks():
                yield chunk[:left]
                left -= min(left, len(chunk))
            if rows > have:
                total = torch.zeros(width, dtype=torch.float64)
                for block in self.blocks():
                    total += block.double().sum(dim=0)
                yield _bytes((total / have).to(self.dtype)) * (rows - have)

        return self if rows == have else Weight(dtype=self.dtype, shape=(rows, width), chunks=chunks)


def read_weights(folder: Path) -> dict[str, Weight]:
    """The weights of a checkpoint folder by the names they have there; only the heads of files are read.

    Pickles of torch are read with `weights_only`, which makes tensors and runs nothing else.

    Raises:
        CheckpointError: no weights, a missing shard, a corrupt file, or a weight in two files.
    """
    paths = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not paths:
        raise CheckpointError(f"{folder} has no *.safetensors or pytorch_model*.bin file with weights")
    _refuse_missing_shards(folder, paths)
    weights: dict[str, Weight] = {}
    for path in paths:
        found = _of_safetensors(path) if path.suffix == ".safetensors" else _of_zip(path)
        twice = sorted(weights.keys() & found.keys())
        if twice:
            raise CheckpointError(f"{folder} has {twice[0]} twice, the second time in {path.name}")
        weights |= found
    return weights


def write_weights(folder: Path, weights: Mapping[str, Weight], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write weights as safetensors, in as many shards with an index as the limit asks for."""
    parts = list(shards({name: weight.size_bytes for name, weight in weights.items()}, shard_bytes))
    names = (
        ["model.safetensors"]
        if len(parts) == 1
        else [f"model-{n:05d}-of-{len(parts):05d}.safetensors" for n in range(1, len(parts) + 1)]
    )
    for file, keys in zip(names, parts, strict=True):
        _write_file(folder / file, {key: weights[key] for key in keys})
    if len(parts) > 1:
        where = {key: file for file, keys in zip(names, parts, strict=True) for key in keys}
        index = {"metadata": {"total_size": total_bytes(weights)}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def total_bytes(weights: Mapping[str, Weight]) -> int:
    """Bytes of all weights."""
    return sum(weight.size_bytes for weight in weights.values())


def shards(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """The keys of each file: in order, as many as fit into so many bytes, at least one.

    >>> list(shards({"a": 4, "b": 4, "c": 9}, limit=8))
    [['a', 'b'], ['c']]
    """
    keys: list[str] = []
    used = 0
    for key, size in sizes.items():
        if keys and used + size > limit:
            yield keys
            keys, used = [], 0
        keys.append(key)
        used += size
    yield keys


def _write_file(path: Path, weights: Mapping[str, Weight]) -> None:
    """One safetensors file, a chunk at a time.

    Source: safetensors, README, "Format": the length of the head in 8 bytes, the head in JSON, the bytes.
    """
    head: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, weight in weights.items():
        start, end = end, end + weight.size_bytes
        head[name] = {
            "dtype": CODES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors behind start at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for weight in weights.values():
            for chunk in weight.chunks():
                file.write(chunk)


def _of_safetensors(path: Path) -> dict[str, Weight]:
    """The weights of one file; it is not mapped into memory, which it may be larger than."""
    size = path.stat().st_size
    found, last = {}, 8
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError("no head")
            head = json.loads(file.read(length))
        last += length
        for name, about in head.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + offset for offset in about["data_offsets"])
            dtype, shape = _DTYPES.get(about["dtype"]), tuple(about["shape"])
            if dtype is None:
                raise CheckpointError(
                    f"{path}: {name} is stored as {about['dtype']}; known: {', '.join(_DTYPES)}"
                )
            found[name] = Weight(dtype=dtype, shape=shape, chunks=_span(path, start, end, shape, dtype))
            if end - start != found[name].size_bytes:
                raise ValueError(f"{name} has {end - start} bytes")
            last = max(last, end)
        if last != size:
            raise ValueError(f"{last} bytes were written")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is a corrupt or incomplete safetensors file of {size} bytes ({error}); fetch it again"
        ) from error
    return found


def _span(
    path: Path, start: int, end: int, shape: tuple[int, ...], dtype: torch.dtype
) -> Callable[[], Iterator[bytes]]:
    """Reads a span of a file in chunks of whole rows."""
    row = max(1, math.prod(shape[1:]) * dtype.itemsize)
    step = max(1, CHUNK_BYTES // row) * row

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(start)
            for place in range(start, end, step):
                yield file.read(min(step, end - place))

    return chunks


def _of_zip(path: Path) -> dict[str, Weight]:
    """A pickle of torch, mapped into memory: a tensor is read from disk when its bytes are asked for."""
    try:
        tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch raises whatever its reader stumbles over
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path} is no file of tensors alone that torch can map: {first}") from error
    return {
        name: Weight(dtype=tensor.dtype, shape=tuple(tensor.shape), chunks=_rows(tensor))
        for name, tensor in tensors.items()
    }


def _rows(tensor: Tensor) -> Callable[[], Iterator[bytes]]:
    width = max(1, math.prod(tensor.shape[1:])) * tensor.dtype.itemsize
    step = max(1, CHUNK_BYTES // width)
    if tensor.dim() == 0:
        return lambda: iter([_bytes(tensor)])
    return lambda: (_bytes(tensor[start : start + step]) for start in range(0, len(tensor), step))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _refuse_missing_shards(folder: Path, paths: list[Path]) -> None:
    """Raise when the index, or the numbers in the files' names, tell of files that are not there."""
    there = {path.name for path in paths}
    wanted: set[str] = set()
    for index in folder.glob("*.index.json"):
        wanted |= {
            file
            for file in json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
            if Path(file).suffix == paths[0].suffix
        }
    numbers = defaultdict(set)
    for name in there:
        if found := _SHARD.search(name):
            numbers[name[: found.start()], int(found[2]), found[3]].add(int(found[1]))
    for (stem, count, kind), have in numbers.items():
        wanted |= {f"{stem}-{n:05d}-of-{count:05d}.{kind}" for n in range(1, count + 1) if n not in have}
    missing = sorted(wanted - there)
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its files with weights: {', '.join(missing[:5])}; "
            "fetch the checkpoint again"
        )
