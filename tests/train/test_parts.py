"""Only what is named learns, each part at its own rate, and adapters stay out of the tower."""

from pathlib import Path

import pytest
import torch

from llava_next_video.errors import ConfigError
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.train.optimizers import MasterOptimizer, orthogonal
from llava_next_video.train.parts import add_adapters, open_parts, parameter_groups, part_of, part_table
from llava_next_video.train.recipe import LoraSettings


@pytest.fixture
def model(checkpoint: Path) -> LlavaNextVideoForConditionalGeneration:
    return LlavaNextVideoForConditionalGeneration.from_pretrained(checkpoint)


def test_each_part_has_its_rate_and_vectors_do_not_decay(
    model: LlavaNextVideoForConditionalGeneration,
) -> None:
    open_parts(model, ("tower", "projector"))
    groups = parameter_groups(model, lr=1e-3, rates={"tower": 2e-6}, weight_decay=0.1, matrices_apart=False)
    seen = {(group["part"], group["weight_decay"]): group["lr"] for group in groups}
    assert seen == {
        ("tower", 0.1): 2e-6,
        ("tower", 0.0): 2e-6,
        ("projector", 0.1): 1e-3,
        ("projector", 0.0): 1e-3,
    }
    for group in groups:
        assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    rows = {row.part: row for row in part_table(model, groups)}
    # Two linear layers 64 -> 64 with bias: 2 x (64 x 64 + 64).
    assert (rows["projector"].parameters, rows["projector"].trainable) == (8320, 8320)
    assert (rows["language_model"].trainable, rows["language_model"].lr) == (0, None)
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in model.parameters())


def test_muon_takes_hidden_matrices_only(model: LlavaNextVideoForConditionalGeneration) -> None:
    open_parts(model, ("language_model",))
    groups = parameter_groups(model, lr=1e-3, rates={}, weight_decay=0.0, matrices_apart=True)
    matrices = [p for group in groups if group["matrices"] for p in group["params"]]
    tables = {id(model.get_input_embeddings().weight), id(model.lm_head.weight)}
    assert len(matrices) == 2 * 7  # Four of attention and three of the MLP, in two layers.
    assert not tables & {id(parameter) for parameter in matrices}


def test_a_rate_for_a_part_that_does_not_learn_is_refused(
    model: LlavaNextVideoForConditionalGeneration,
) -> None:
    open_parts(model, ("projector",))
    with pytest.raises(ConfigError, match=r"learning\.rates has 'tower', which does not learn"):
        parameter_groups(model, lr=1.0, rates={"tower": 1.0}, weight_decay=0.0, matrices_apart=False)
    open_parts(model, ())
    with pytest.raises(ConfigError, match="nothing would learn"):
        parameter_groups(model, lr=1.0, rates={}, weight_decay=0.0, matrices_apart=False)


@pytest.mark.parametrize("parts", [("language_model",), ("language_model", "tower")])
def test_adapters_touch_the_tower_only_when_it_is_named(
    model: LlavaNextVideoForConditionalGeneration, parts: tuple[str, ...]
) -> None:
    pytest.importorskip("peft", reason="the train extra is not installed")
    adapted = add_adapters(model, LoraSettings(rank=4, parts=parts), ("projector",))
    learning = {name: part_of(name) for name, p in adapted.named_parameters() if p.requires_grad}
    assert set(learning.values()) == {*parts, "projector"}
    adapters = [name for name in learning if "lora_" in name]
    assert len([name for name in adapters if part_of(name) == "language_model"]) == 2 * 2 * 7
    # Tower: q, k, v, out and two of the MLP in each of its three layers.
    assert len([name for name in adapters if part_of(name) == "tower"]) == (36 if "tower" in parts else 0)
    assert all("lora_" in name for name in learning if part_of(name) != "projector")


def test_orthogonal_updates_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert 0.6 < float(values.min()) < float(values.max()) < 1.3


def test_adam_groups_step_as_torch_does() -> None:
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2))
    settings = {"lr": 0.01, "weight_decay": 0.1}
    mine = MasterOptimizer([{"params": [ours], **settings}], betas=(0.9, 0.999))
    reference = torch.optim.AdamW([theirs], betas=(0.9, 0.999), **settings)
    for step in range(5):
        for parameter, optimizer in ((ours, mine), (theirs, reference)):
            parameter.grad = torch.sin(parameter.detach() + step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_narrow_weights_keep_a_float32_master_through_saving() -> None:
    def parameter() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.ones(4, 6, dtype=torch.bfloat16))

    def steps(parameter: torch.nn.Parameter, optimizer: MasterOptimizer, first: int, last: int) -> None:
        for step in range(first, last):
            parameter.grad = torch.full_like(parameter, 1.0 + step)
            optimizer.step()

    whole, halved = parameter(), parameter()
    uninterrupted = MasterOptimizer([{"params": [whole], "lr": 1e-4}])
    steps(whole, uninterrupted, 0, 20)
    # Twenty steps of 1e-4 show, though one alone is lost in the 8 bits of a bfloat16 one.
    assert float(whole.detach()[0, 0]) == pytest.approx(1 - 20e-4, abs=2**-8)
    assert float(uninterrupted.state[whole]["master"][0, 0]) == pytest.approx(1 - 20e-4, abs=1e-4)
    before = MasterOptimizer([{"params": [halved], "lr": 1e-4}])
    steps(halved, before, 0, 10)
    after = MasterOptimizer([{"params": [halved], "lr": 1e-4}])
    after.load_state_dict(before.state_dict())
    steps(halved, after, 10, 20)
    assert torch.equal(after.state[halved]["master"], uninterrupted.state[whole]["master"])
    assert torch.equal(halved, whole)
