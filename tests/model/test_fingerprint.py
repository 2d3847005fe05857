"""Equal checkpoints have equal fingerprints, however they lie on the disk; others have others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from llava_next_video.model.fingerprint import fingerprint, whole_fingerprint


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def test_shards_do_not_matter(copy: Path, tiny_checkpoint: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    names = sorted(weights)
    (copy / "model.safetensors").unlink()
    for number, some in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in some}, copy / f"model-{number}.safetensors")
    assert fingerprint(copy) == fingerprint(tiny_checkpoint)


@pytest.mark.parametrize("wanted", ["layers.0.mlp.down_proj", "embed_tokens", "norm"])
def test_a_last_row_that_learned_matters(copy: Path, tiny_checkpoint: Path, wanted: str) -> None:
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in sorted(weights) if wanted in name)
    weights[name] = weights[name].clone()
    weights[name][len(weights[name]) * 15 // 16 :] += 0.01
    save_file(weights, copy / "model.safetensors")
    assert fingerprint(copy) != fingerprint(tiny_checkpoint)


def test_settings_matter_to_an_answer_and_not_to_the_weights(copy: Path, tiny_checkpoint: Path) -> None:
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(settings | {"spatial_pool_stride": 1}))
    assert fingerprint(copy) == fingerprint(tiny_checkpoint)
    assert whole_fingerprint(copy) != whole_fingerprint(tiny_checkpoint)
