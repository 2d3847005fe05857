"""Whether two checkpoint folders hold the same weights, without reading all of them."""

import hashlib
from pathlib import Path

from safetensors import safe_open

from llava_next_video.model.checkpoint import named_failures
from llava_next_video.model.layouts import in_memory


def fingerprint(folder: Path) -> str:
    """A digest of names, shapes and the first row of every weight, whatever the layout and the shards.

    Raises:
        CheckpointError: A file is corrupt.
    """
    rows: list[tuple[str, str]] = []
    with named_failures(str(folder)):
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (a file is no mapping)
                    weight = file.get_slice(key)
                    shape = weight.get_shape()
                    first = weight[:1] if shape else file.get_tensor(key)
                    told = f"{shape} {first.flatten()[:64].double().tolist()}"
                    rows.append((in_memory(key), told))
    return hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()
