"""A recipe means what it says; a word it does not know is an error."""

from pathlib import Path

import pytest

from llava_next_video.checkpoint_name import default_checkpoint
from llava_next_video.errors import ConfigError
from llava_next_video.train.recipe import PARTS, read_recipe, tuned_parts

GOOD = """
model = "org/model"
output = "out"
[data]
sources = ["a.json", {path = "b.json", take = "first:10", weight = 0.5}]
frames = 4
[learning]
lr = 1
rates = {tower = 2e-6}
"""


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read_with_paths_from_its_own_folder(tmp_path: Path) -> None:
    read = read_recipe(recipe(tmp_path, GOOD), "sft")
    assert read.model == "org/model"
    assert read.output == str(tmp_path / "out")
    assert [source.path for source in read.data.sources] == [
        str(tmp_path / "a.json"),
        str(tmp_path / "b.json"),
    ]
    assert (read.data.sources[1].weight, read.data.sources[1].take.amount) == (0.5, 10)
    assert (read.learning.lr, read.learning.rates) == (1.0, {"tower": 2e-6})
    assert tuned_parts(read) == PARTS


def test_a_stage_has_defaults_that_the_recipe_overrules_and_the_command_line_overrules_both(
    tmp_path: Path,
) -> None:
    path = recipe(tmp_path, 'model = "m"\noutput = "o"\n[learning]\nsteps = 5\n')
    align = read_recipe(path, "align")
    assert (align.data.template, align.learning.lr, tuned_parts(align)) == ("plain", 1e-3, ("projector",))
    assert read_recipe(path, "sft").learning.lr == 1e-5
    overruled = read_recipe(
        path, "align", ["learning.lr=2e-4", "learning.steps=none", "data.sampling=linspace"]
    )
    assert (overruled.learning.lr, overruled.learning.steps, overruled.data.sampling) == (
        2e-4,
        None,
        "linspace",
    )


def test_lora_leaves_only_the_projector_to_learn_whole(tmp_path: Path) -> None:
    read = read_recipe(recipe(tmp_path, GOOD + "[lora]\nrank = 8\n"), "sft")
    assert tuned_parts(read) == ("projector",)
    assert read.lora.parts == ("language_model",)


@pytest.mark.parametrize(
    ("text", "override", "complaint"),
    [
        (
            GOOD,
            "learning.lr_rate=1",
            "unknown setting 'learning.lr_rate'; did you mean 'learning.lr'? known: ",
        ),
        (GOOD, "learn.lr=1", "unknown setting 'learn'; did you mean 'learning'? known: model, output"),
        (
            GOOD,
            "learning.rates.vision=1",
            "unknown setting 'learning.rates.vision'; known: learning.rates.tower",
        ),
        (GOOD, "learning.batch=two", "learning.batch is 'two'; expected int"),
        (GOOD, "learning.batch=0", "learning.batch is 0; expected at least 1"),
        (GOOD, "learning.steps=0", "learning.steps is 0; expected at least 1"),
        (GOOD, "learning.schedule=step", "learning.schedule is 'step'; expected one of cosine, linear"),
        (GOOD, "tune=['head']", "tune is 'head'; expected one of tower, projector"),
        (GOOD, "data.frames_per_second=2.0", "has no effect with sampling 'uniform'"),
        (GOOD, "data.sampling=fps", "needs data.frames_per_second"),
        (GOOD, "lora.bits=4", "lora.bits needs lora.rank"),
        (GOOD, "learning.betas=[0.9]", "expected two numbers"),
        (GOOD, "data.mixture=mix.toml", "both given"),
        (GOOD + "[trainer]\nfsdp = true\n", "learning.optimizer=muon", "trainer.fsdp splits weights"),
        (GOOD, "lr", "expected name=value"),
        ('output = "o"', "seed=1", "the recipe has no 'model'; add it"),
        ("model =", "seed=1", "not TOML"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(
    tmp_path: Path, text: str, override: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_recipe(recipe(tmp_path, text), "sft", [override])
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_whole_parts_beside_lora_are_refused(tmp_path: Path) -> None:
    text = 'tune = ["tower"]\n' + GOOD + "[lora]\nrank = 8\n"
    with pytest.raises(ConfigError, match="tune has 'tower' beside LoRA"):
        read_recipe(recipe(tmp_path, text), "sft")


def test_a_missing_recipe_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file or directory; give a recipe as TOML"):
        read_recipe(tmp_path / "nothing.toml", "sft")


RUNS = Path(__file__).parents[2] / "runs"


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.glob("*.toml")))
def test_every_shipped_recipe_is_one(name: str) -> None:
    read = read_recipe(RUNS / name, {"align.toml": "align", "dpo.toml": "dpo"}.get(name, "sft"))
    assert read.data.sources
    tuned = {"sft.toml": PARTS, "dpo.toml": ("language_model",)}
    assert tuned_parts(read) == tuned.get(name, ("projector",))


def test_default_names_the_checkpoint_of_the_package(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'model = "default"\noutput = "o"\n')
    assert read_recipe(path, "sft").model == str(default_checkpoint())
