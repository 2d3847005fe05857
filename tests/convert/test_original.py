"""Checkpoints of the original release: to the hub's layout and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.convert.plain import Original

from llava_next_video.convert import Wishes, hub_to_original, original_to_hub
from llava_next_video.model import LlavaNextVideoForConditionalGeneration

CLIP = Wishes(template="vicuna")
"""Tiny networks are no published checkpoints, so their template is told."""


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder, whatever its shards."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == weight.dtype, name
        assert torch.equal(found[name], weight), name


@pytest.mark.parametrize(
    ("family", "tower", "said", "expected"),
    [
        ("llama", "clip", {}, {"pool_first": True, "newline": "no_token"}),
        ("llama", "clip", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_factor": 2.0}),
        ("llama", "clip", {"mm_spatial_pool_mode": "max"}, {"mode": "max"}),
        ("llama", "clip", {"mm_spatial_pool_stride": 5}, {"stride": 5}),
        ("mistral", "clip", {}, {}),
        ("qwen2", "clip", {"mm_newline_position": "grid"}, {"pool_first": False, "newline": "grid"}),
        (
            "qwen2",
            "clip",
            {"mm_newline_position": "frame", "mm_pooling_position": "before"},
            {"newline": "frame"},
        ),
        (
            "qwen2",
            "clip",
            {"mm_newline_position": "one_token"},
            {"pool_first": False, "newline": "one_token"},
        ),
        (
            "qwen2",
            "siglip",
            {"mm_spatial_pool_mode": "absent", "mm_spatial_pool_stride": None, "mm_resampler_type": None},
            {"pool_first": False, "newline": "grid", "mode": "bilinear"},
        ),
    ],
    ids=str,
)
def test_a_converted_checkpoint_computes_what_the_original_computes(
    release: Any, tmp_path: Path, family: str, tower: str, said: dict[str, Any], expected: dict[str, Any]
) -> None:
    folder = release(family, tower, **said)
    original_to_hub(folder, tmp_path / "hub", CLIP)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(tmp_path / "hub").eval()
    told = {"pool_first": True, "mode": "average", "stride": 2, "newline": "no_token"} | expected
    original = Original(weights=weights_of(folder), tower=tower, **told)
    frames = torch.randn(3, 3, 70, 70, generator=torch.Generator().manual_seed(1))
    seen = original.clip(frames)
    video = model.config.video_token_index
    ids = [1, 30, 40, *[video] * len(seen), 50, 60, 70]
    with torch.inference_mode():
        found = model(torch.tensor([ids]), pixel_values_videos=frames[None]).logits[0]
    wanted = original.logits([1, 30, 40, video, 50, 60, 70], {3: seen})
    vocabulary = wanted.shape[1]
    torch.testing.assert_close(found[:, :vocabulary].double(), wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("family", "tower"), [("llama", "clip"), ("qwen2", "siglip")])
def test_there_and_back_every_bit_is_the_same(
    release: Any, tmp_path: Path, family: str, tower: str, dtype: torch.dtype, shards: int
) -> None:
    folder = release(family, tower, dtype=dtype, shards=shards)
    original_to_hub(folder, tmp_path / "hub", CLIP, shard_bytes=50_000)
    assert len(list((tmp_path / "hub").glob("model-*.safetensors"))) > 1
    hub_to_original(tmp_path / "hub", tmp_path / "back")
    assert_same_bits(weights_of(tmp_path / "back"), weights_of(folder))
    for path in folder.glob("*.json"):
        if not path.name.endswith(".index.json"):
            assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes(), path.name
