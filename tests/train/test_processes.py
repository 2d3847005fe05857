"""Two processes (gloo) learn step by step what one does, short last steps of an epoch included."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from llava_next_video.train.recipe import Stage
from llava_next_video.train.run import run_training

RECIPE = """
model = "{checkpoint}"
output = "out"
[data]
sources = [{{path = "{rows}", root = "{media}"}}]
frames = 3
[learning]
lr = 1e-3
epochs = 2
precision = "float32"
warmup = 0
[saving]
every = 2
log_every = 1
"""


def run_on_two(recipe: Path, stage: Stage, *settings: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["-m", "llava_next_video.cli", "train", stage, str(recipe)]
    changes = [word for setting in settings for word in ("--set", setting)]
    subprocess.run([*launch, *command, *changes], check=True, capture_output=True)


def told(folder: Path, *figures: str) -> list[list[float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[line["step"], *(line[figure] for figure in figures)] for line in lines]


def pairs_at(path: Path) -> Path:
    """Three pairs with answers of different lengths."""
    said = [("A red circle.", "No."), ("It moves left, then up.", "It stands still."), ("Yes.", "Two.")]
    rows = [
        {"id": n, "prompt": "<video>\nWhat moves?", "chosen": a, "rejected": b, "video": f"clip{n}"}
        for n, (a, b) in enumerate(said)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "alone", "shared", "figures"),
    [
        # 12 samples in steps of 10: in the second one process has 2 samples and the other has none.
        ("sft", ["learning.batch=10"], ["learning.batch=5"], ["loss", "grad_norm"]),
        # In steps of 8: 2 and 2 of the last 4 samples, where 4 and 4 would be a full step.
        ("sft", ["learning.batch=8"], ["learning.batch=2", "learning.accumulate=2"], ["loss", "grad_norm"]),
        # 3 pairs in steps of 2.
        ("dpo", ["learning.batch=2"], ["learning.batch=1"], ["loss", "rewards_chosen", "dpo_loss"]),
    ],
    ids=["a process without samples", "accumulated batches", "pairs"],
)
def test_two_processes_learn_what_one_does(
    tmp_path: Path,
    checkpoint: Path,
    media: Path,
    stage: Stage,
    alone: list[str],
    shared: list[str],
    figures: list[str],
) -> None:
    rows = media / "samples.json" if stage == "sft" else pairs_at(tmp_path / "pairs.jsonl")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(checkpoint=checkpoint, rows=rows, media=media))
    run_on_two(recipe, stage, *shared, 'output="two"')
    one = run_training(recipe, stage, alone)
    assert one.steps == 4
    ours, theirs = told(tmp_path / "out", *figures), told(tmp_path / "two", *figures)
    for first, second in zip(ours, theirs, strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
    final = [load_file(tmp_path / name / "final" / "model.safetensors") for name in ("out", "two")]
    assert max(float((final[0][key] - final[1][key]).abs().max()) for key in final[0]) < 1e-4
    assert {path.name for path in (tmp_path / "two").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
