"""Whole runs: what learns, what is saved, and that a run can be cut anywhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from llava_next_video.errors import CapacityError, CheckpointError, ConfigError, DataError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.merging import merge_adapter
from llava_next_video.train.recipe import read_recipe
from llava_next_video.train.run import Trained, load_model, run_training

RECIPE = """
model = "{checkpoint}"
output = "{output}"
[data]
sources = ["{media}/samples.json"]
frames = 3
[learning]
lr = 1e-3
steps = 4
batch = 4
precision = "float32"
[saving]
every = 2
log_every = 1
"""


@pytest.fixture
def recipe(tmp_path: Path, checkpoint: Path, media: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(checkpoint=checkpoint, media=media, output=tmp_path / "out"))
    return path


def changed(folder: Path, checkpoint: Path) -> set[str]:
    """First names of the weights that are not those the run started from."""
    before, after = (load_file(path / "model.safetensors") for path in (checkpoint, folder))
    assert before.keys() == after.keys()
    return {key.split(".")[0] for key in before if not before[key].equal(after[key])}


@pytest.mark.slow
def test_align_tunes_the_projector_alone(recipe: Path, checkpoint: Path) -> None:
    lines: list[str] = []
    trained = run_training(recipe, "align", ["learning.steps=2"], report=lines.append)
    assert changed(trained.folder, checkpoint) == {"multi_modal_projector"}
    assert [row.trainable for row in trained.table] == [0, 8320, 0, 0]
    assert lines[0].splitlines()[2].split() == ["projector", "8,320", "8,320", "0.001"]
    assert lines[1].startswith("12 samples in 12 sequences")
    assert not list(trained.folder.glob("*.bin"))
    LlavaNextVideoForConditionalGeneration.from_pretrained(trained.folder)
    LlavaNextVideoProcessor.from_pretrained(trained.folder)


@pytest.mark.slow
def test_sft_tunes_all_parts_and_tells_how_it_went(recipe: Path, checkpoint: Path, tmp_path: Path) -> None:
    settings = ["learning.batch=12", "learning.steps=3", "saving.every=100", "saving.log_every=2"]
    trained = run_training(recipe, "sft", settings)
    assert changed(trained.folder, checkpoint) == {
        "vision_tower",
        "multi_modal_projector",
        "image_newline",
        "language_model",
    }
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] < lines[0]["loss"]
    # The first step, the second, and the last, which is reported though it is not a multiple of two.
    assert trained.loss == pytest.approx(sum(line["loss"] for line in lines) / 3, rel=1e-4)
    assert "<polyline" in (tmp_path / "out/loss.svg").read_text()


@pytest.mark.slow
def test_a_sample_that_is_dropped_is_counted_and_named_once(
    recipe: Path, tmp_path: Path, media: Path
) -> None:
    rows = json.loads((media / "samples.json").read_text())[:5]
    rows[2]["image"] = "missing.png"
    (tmp_path / "some.json").write_text(json.dumps(rows))
    source = f'data.sources=[{{path = "some.json", root = "{media}"}}]'
    lines: list[str] = []
    trained = run_training(
        recipe, "sft", [source, "learning.steps=5", "learning.batch=1"], report=lines.append
    )
    assert trained.dropped == 1
    (named,) = [line for line in lines if "missing.png" in line]
    assert named.startswith("dropped picture0: ")
    assert json.loads((tmp_path / "out/dropped.jsonl").read_text())["ids"] == ["picture0"]


def weights(trained: Trained) -> dict[str, object]:
    return load_file(trained.folder / "model.safetensors")


def assert_equal_weights(first: Trained, second: Trained) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["learning.optimizer=muon", "learning.precision=bfloat16_weights"]])
def test_a_resumed_run_equals_an_uninterrupted_one(recipe: Path, tmp_path: Path, settings: list[str]) -> None:
    whole = run_training(recipe, "sft", settings)
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "out", half)
    shutil.rmtree(half / "final")
    shutil.rmtree(half / "checkpoint-4")
    (half / "partial-checkpoint-3").mkdir()
    lines: list[str] = []
    resumed = run_training(recipe, "sft", [*settings, f'output="{half}"'], report=lines.append)
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["3/4", "4/4"]
    assert_equal_weights(whole, resumed)
    metrics = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (tmp_path / "out", half)
    ]
    assert [line["loss"] for line in metrics[0]] == [line["loss"] for line in metrics[1]]
    assert not (half / "partial-checkpoint-3").exists()


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(recipe: Path, tmp_path: Path) -> None:
    first = run_training(recipe, "sft")
    before = weights(first)
    shutil.rmtree(tmp_path / "out" / "final")
    lines: list[str] = []
    again = run_training(recipe, "sft", report=lines.append)
    assert lines[-1] == "all 4 steps were done before"
    assert again.steps == 4
    assert all(weights(again)[key].equal(before[key]) for key in before)


@pytest.mark.slow
def test_memory_can_be_saved_without_other_results(recipe: Path, tmp_path: Path) -> None:
    plain = run_training(recipe, "sft")
    output = f'output="{tmp_path / "saved"}"'
    assert_equal_weights(plain, run_training(recipe, "sft", ["learning.checkpointing=true", output]))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "bfloat16_weights"])
def test_bfloat16_learns_as_float32_does(recipe: Path, tmp_path: Path, precision: str) -> None:
    exact = run_training(recipe, "sft", [])
    narrow = run_training(
        recipe, "sft", [f"learning.precision={precision}", f'output="{tmp_path / "narrow"}"']
    )
    assert narrow.loss == pytest.approx(exact.loss, rel=5e-3)


@pytest.mark.slow
def test_batches_prepared_by_workers_are_the_same(recipe: Path, tmp_path: Path) -> None:
    here = run_training(recipe, "sft")
    there = run_training(recipe, "sft", ["data.workers=1", f'output="{tmp_path / "there"}"'])
    assert_equal_weights(here, there)


@pytest.mark.slow
def test_eight_accumulated_samples_equal_a_batch_of_eight(recipe: Path, tmp_path: Path) -> None:
    one = run_training(recipe, "sft", ["learning.batch=8", "learning.steps=3"])
    eight = run_training(
        recipe,
        "sft",
        ["learning.batch=1", "learning.accumulate=8", "learning.steps=3", f'output="{tmp_path / "eight"}"'],
    )
    assert eight.loss == pytest.approx(one.loss, rel=1e-5)
    ours, theirs = weights(one), weights(eight)
    assert all((ours[key] - theirs[key]).abs().max() < 1e-4 for key in ours)


DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from llava_next_video.train.run import run_training
from llava_next_video.errors import CapacityError
try:
    run_training(sys.argv[1], "sft")
except CapacityError as error:
    print(error)
"""


@pytest.mark.slow
def test_no_room_for_a_checkpoint_leaves_the_last_one_to_go_on_from(recipe: Path, tmp_path: Path) -> None:
    whole = run_training(recipe, "sft", [f'output="{tmp_path / "whole"}"'])
    run_training(recipe, "sft")
    out = tmp_path / "out"
    shutil.rmtree(out / "final")
    shutil.rmtree(out / "checkpoint-4")
    told = subprocess.run(
        [sys.executable, "-c", DISK, str(recipe)], capture_output=True, text=True, check=True
    )
    (line,) = told.stdout.splitlines()
    assert line.startswith(f"{out}/checkpoint-4: cannot be saved (")
    assert line.endswith("checkpoint-2 is whole; make room and run the same command to go on")
    assert sorted(path.name for path in out.glob("*checkpoint*")) == ["checkpoint-2"]
    assert_equal_weights(whole, run_training(recipe, "sft"))


@pytest.mark.slow
def test_lora_saves_an_adapter_and_resumes(recipe: Path, tmp_path: Path, checkpoint: Path) -> None:
    pytest.importorskip("peft", reason="the train extra is not installed")
    settings = ["lora.rank=4", "lora.dropout=0.1"]
    whole = run_training(recipe, "sft", settings)
    assert {path.name for path in whole.folder.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "out", half)
    shutil.rmtree(half / "final")
    shutil.rmtree(half / "checkpoint-4")
    resumed = run_training(recipe, "sft", [*settings, f'output="{half}"'])
    first, second = (load_file(run.folder / "adapter_model.safetensors") for run in (whole, resumed))
    assert all(first[key].equal(second[key]) for key in first)
    assert not any("vision_tower" in key for key in first)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_qlora_quantises_the_language_model_and_nothing_else(recipe: Path, checkpoint: Path) -> None:
    quantised = pytest.importorskip("bitsandbytes", reason="the quant extra is not installed").nn.Linear4bit
    settings = ["lora.rank=4", "lora.bits=4", "learning.steps=2"]
    model = load_model(read_recipe(recipe, "sft", settings))
    narrow = [name for name, module in model.named_modules() if isinstance(module, quantised)]
    assert len(narrow) == 2 * 7
    assert all(".language_model." in name for name in narrow)
    trained = run_training(recipe, "sft", settings)
    adapter = load_file(trained.folder / "adapter_model.safetensors")
    assert not any("vision_tower" in key for key in adapter)
    assert any(key.endswith("lora_B.weight") and bool(adapter[key].any()) for key in adapter)
    merged = merge_adapter(trained.folder, trained.folder.with_name("merged"))
    assert changed(merged, checkpoint) == {"language_model", "multi_modal_projector"}


@pytest.mark.slow
def test_other_settings_are_not_mixed_into_a_run_under_way(recipe: Path, tmp_path: Path, media: Path) -> None:
    (tmp_path / "samples.json").write_text((media / "samples.json").read_text())
    source = f'data.sources=[{{path = "samples.json", root = "{media}"}}]'
    settings = [source, "learning.steps=1", "saving.every=1"]
    run_training(recipe, "align", settings)
    with pytest.raises(ConfigError, match=r"was trained so far with another 'learning\.lr'"):
        run_training(recipe, "align", [*settings, "learning.lr=0.5"])
    with pytest.raises(ConfigError, match="has checkpoint-1, and resume is false"):
        run_training(recipe, "align", ["resume=false"])
    rows = (tmp_path / "samples.json").read_text()
    (tmp_path / "samples.json").write_text(rows.replace("To the left.", "To the left, I think."))
    with pytest.raises(ConfigError, match="was trained so far on other samples"):
        run_training(recipe, "align", settings)


@pytest.mark.parametrize(
    ("settings", "error", "complaint"),
    [
        (
            ["trainer.fp17=true"],
            ConfigError,
            r"unknown setting 'trainer.fp17'; did you mean 'trainer.fp16'\?",
        ),
        (["trainer.max_steps=3"], ConfigError, "decided by the recipe's own settings"),
        (
            ["data.context=10_000"],
            CapacityError,
            "data.context is 10000, and the model has positions for 4096",
        ),
        (["data.context=10"], CapacityError, r"samples\.json:1: .* use fewer frames"),
        (['model="/nowhere/model"'], CheckpointError, "/nowhere/model"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    recipe: Path, settings: list[str], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint) as refusal:
        run_training(recipe, "align", settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_rows_that_cannot_be_used_stop_a_run_unless_they_may_be_dropped(
    recipe: Path, tmp_path: Path, media: Path
) -> None:
    pair = {"prompt": "<video>\nWhy?", "chosen": "So.", "rejected": "No.", "video": "clip0"}
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {"caption": "A.", "video": "clip0"},
                {"question": "Why?"},
                {"caption": "B.", "video": "clip1"},
            )
        )
    )
    settings = [f'data.sources=[{{path = "rows.jsonl", root = "{media}"}}]', "learning.steps=1"]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no format"):
        run_training(recipe, "align", settings)
    lines: list[str] = []
    assert run_training(recipe, "align", [*settings, "data.bad_rows=drop"], report=lines.append).dropped == 1
    assert "rows.jsonl:2" in lines[0]
    (tmp_path / "rows.jsonl").write_text(json.dumps(pair) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: a preference pair"):
        run_training(recipe, "align", [*settings, 'output="other"'])


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step \d+; lower learning\.lr"):
        run_training(recipe, "sft", ["learning.lr=1e30", "learning.max_grad_norm=1e30"])


def test_a_checkpoint_of_another_shape_is_one_sentence(
    recipe: Path, tmp_path: Path, checkpoint: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 256
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json") as refusal:
        run_training(recipe, "sft", [f'model="{other}"'])
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_what_was_learned_by_heart_is_what_the_model_then_says(recipe: Path, media: Path) -> None:
    settings = [
        "learning.optimizer=muon",
        "learning.lr=0.01",
        "learning.schedule=linear",
        "learning.batch=4",
        "learning.steps=80",
        "saving.every=1000",
        "data.pack=true",
    ]
    trained = run_training(recipe, "sft", settings)
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(trained.folder).eval()
    processor = LlavaNextVideoProcessor.from_pretrained(trained.folder)
    said = []
    for clip in range(4):
        parts = [
            {"type": "video", "video": str(media / f"clip{clip}")},
            {"type": "text", "text": "What moves?"},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            num_frames=3,
        )
        ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)
        said.append(
            processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        )
    assert said == [f"A circle, {clip} times." for clip in range(4)]
