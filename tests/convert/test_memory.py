"""A conversion needs the same memory for a large checkpoint as for a small one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.convert.conftest import original_weights
from tests.convert.test_published import hollow

PROGRAM = """
import resource, sys
from pathlib import Path
from llava_next_video.convert import Wishes, hub_to_original, original_to_hub

def there_and_back(source, out):
    original_to_hub(source, out / "hub", Wishes(template="vicuna"))
    hub_to_original(out / "hub", out / "back")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

large, small, out = map(Path, sys.argv[1:])
before = there_and_back(small, out / "small")  # what is imported on the way is in memory now
print(there_and_back(large, out / "large") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_large_checkpoint_takes_no_more_memory_than_a_small_one(
    tmp_path: Path, release: Callable[..., Path]
) -> None:
    small, rows = release(name="small"), 2_500_000
    large = release(name="large", vocab_size=rows)
    tiny = original_weights("llama", "clip", 384, torch.float16)
    shapes = {name: tuple(weight.shape) for name, weight in tiny.items()}
    # Two matrices of 2.5 million rows of 32 numbers in 16 bits: 320 MB.
    shapes |= dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (rows, 32))
    hollow(large, shapes)
    command = [sys.executable, "-c", PROGRAM, str(large), str(small), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(done.stdout)
    assert (tmp_path / "large" / "back" / "model.safetensors").stat().st_size > 320_000_000
    assert grown < 62_500_000, f"{grown:,} bytes"  # some chunks of 16 MiB
