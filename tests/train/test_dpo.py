"""What a step of preference learning computes: against TRL's trainer, alone and together, and whole runs."""

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from llava_next_video.convert.presets import PRESETS
from llava_next_video.convert.random import write_random
from llava_next_video.data.collate import Collator
from llava_next_video.data.dataset import Dropped, Example, Rules
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import IGNORED
from llava_next_video.data.record import Place, Preference
from llava_next_video.errors import CapacityError, ConfigError, DataError, MediaError
from llava_next_video.media import Sampling
from llava_next_video.messages import Text, Turn, Video
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.comparing import Comparing, token_logprobs
from llava_next_video.train.dpo_settings import DpoSettings
from llava_next_video.train.pairs import Pair, PairCollator, Pairs, wanted_pairs
from llava_next_video.train.parts import open_parts
from llava_next_video.train.recipe import DataSettings, read_recipe, tuned_parts
from llava_next_video.train.reference import CACHE, Frozen, frozen_copy
from llava_next_video.train.run import run_training, text_encoder

RULES = Rules(sampling=Sampling(frames=3), context=4096)
SAID = [
    ("A red circle.", "No."),
    ("It moves to the left, then up.", "It stands still."),
    ("Yes.", "Two of them."),
]


def preference(media: Path, number: int, *, chosen: str, rejected: str) -> Preference:
    question = Turn(
        role="user", parts=(Video(source=str(media / f"clip{number}")), Text(text=f"What moves in {number}?"))
    )
    return Preference(
        id=f"pair{number}",
        turns=(question,),
        chosen=Turn(role="assistant", parts=(Text(text=chosen),)),
        rejected=Turn(role="assistant", parts=(Text(text=rejected),)),
        place=Place(file="pairs.jsonl", line=number + 1),
    )


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> LlavaNextVideoProcessor:
    return LlavaNextVideoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def preferences(media: Path) -> list[Preference]:
    return [preference(media, number, chosen=a, rejected=b) for number, (a, b) in enumerate(SAID)]


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def model(checkpoint: Path) -> LlavaNextVideoForConditionalGeneration:
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(checkpoint).train()
    open_parts(model, ["language_model"])
    return model


def pairs_of(
    preferences: list[Preference],
    model: LlavaNextVideoForConditionalGeneration,
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
    rules: Rules = RULES,
) -> Pairs:
    return Pairs(
        preferences,
        encoder=text_encoder(processor, DataSettings()),
        processor=processor,
        layouts=model.config,
        rules=rules,
        decoder=decoder,
    )


@pytest.fixture
def batch(
    preferences: list[Preference],
    model: LlavaNextVideoForConditionalGeneration,
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
) -> dict[str, object]:
    pairs = pairs_of(preferences, model, processor, decoder)
    return PairCollator(0)([pairs[number] for number in range(len(pairs))])


def test_the_number_of_frames_is_the_recipes_whatever_the_processor_s_file_says(
    preferences: list[Preference],
    model: LlavaNextVideoForConditionalGeneration,
    checkpoint: Path,
    decoder: Decoder,
) -> None:
    processor = LlavaNextVideoProcessor.from_pretrained(checkpoint)
    processor.video_processor.num_frames = 8
    pair = pairs_of(preferences, model, processor, decoder)[0]
    assert isinstance(pair, Pair)
    assert pair.example.pixels[0].values.shape[0] == 3


def moved(model: LlavaNextVideoForConditionalGeneration) -> LlavaNextVideoForConditionalGeneration:
    """The model a little away from where it was, so that it differs from its reference."""
    dice = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=dice)
    return model


def step(
    model: LlavaNextVideoForConditionalGeneration, reference: Frozen, dpo: DpoSettings, batches: list[dict]
) -> tuple[float, dict[str, Tensor], dict[str, float]]:
    """Loss, gradients and figures of one optimizer step over the batches."""
    told: dict[str, Tensor] = {}

    def tell(figures: dict[str, Tensor]) -> None:
        for name, sum_and_count in figures.items():
            told[name] = told.get(name, 0) + sum_and_count

    objective = Comparing(dpo=dpo, reference=reference, narrow=nullcontext, tell=tell)
    items = torch.stack([Comparing.count(one) for one in batches]).sum(dim=0)
    model.zero_grad()
    total = 0.0
    for one in batches:
        loss = objective(model, without_notes(one), items)
        loss.backward()
        total += float(loss.detach())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, gradients, {name: float(sum) / max(float(count), 1) for name, (sum, count) in told.items()}


def without_notes(batch: dict) -> dict:
    return {name: value for name, value in batch.items() if name not in ("samples", "dropped")}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=2e-6, msg=name)


def rows_of(pair: Pair) -> list[Example]:
    """Both answers of a packed pair as sequences of their own, each with a copy of the clip."""
    example = pair.example
    return [
        Example(
            ids=example.ids[keep],
            labels=example.labels[keep],
            branches=torch.zeros(int(keep.sum())).long(),
            pixels=example.pixels,
        )
        for keep in ((example.branches == 0) | (example.branches == number) for number in (1, 2))
    ]


def test_an_answer_behind_a_shared_prompt_has_the_log_probabilities_it_has_alone(
    preferences: list[Preference],
    model: LlavaNextVideoForConditionalGeneration,
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
    batch: dict,
) -> None:
    pairs = pairs_of(preferences, model, processor, decoder)
    items = [pairs[number] for number in range(len(pairs))]
    assert all(isinstance(item, Pair) for item in items)
    assert [len(item.example.ids) for item in items] == pairs.lengths
    with torch.no_grad():
        packed = token_logprobs(model, without_notes(batch))
        alone = [
            token_logprobs(model, without_notes(Collator(0)([row])))
            for item in items
            for row in rows_of(item)
        ]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_what_is_learned_is_the_answer_and_its_end(
    preferences: list[Preference],
    model: LlavaNextVideoForConditionalGeneration,
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
) -> None:
    earlier = (
        Turn(role="assistant", parts=(Text(text="A circle."),)),
        Turn(role="user", parts=(Text(text="Sure?"),)),
    )
    longer = replace(preferences[0], turns=(*preferences[0].turns, *earlier))
    pair = pairs_of([longer], model, processor, decoder)[0]
    assert isinstance(pair, Pair)
    for row, said in zip(rows_of(pair), SAID[0], strict=True):
        assert processor.tokenizer.decode(row.labels[row.labels != IGNORED]).strip() == f"{said}</s>"
        assert "A circle." in processor.tokenizer.decode(row.ids)


class Watched:
    """Counts the tiles that a vision tower was shown."""

    def __init__(self, model: LlavaNextVideoForConditionalGeneration) -> None:
        self.tiles = 0
        model.model.vision_tower.embeddings.register_forward_hook(self._count)

    def _count(self, module: object, inputs: object, output: Tensor) -> None:
        self.tiles += len(output)


def test_each_frame_is_encoded_once_for_both_answers_and_the_reference(
    model: LlavaNextVideoForConditionalGeneration, batch: dict
) -> None:
    reference = Frozen(network=frozen_copy(model), shares_sight=True)
    ours, theirs = Watched(model), Watched(reference.network)
    step(model, reference, DpoSettings(), [batch])
    assert (ours.tiles, theirs.tiles) == (3 * 3, 0)  # Three pairs, three frames each.


def test_shared_sight_changes_nothing(model: LlavaNextVideoForConditionalGeneration, batch: dict) -> None:
    frozen = frozen_copy(model)
    moved(model)
    shared = step(model, Frozen(network=frozen, shares_sight=True), DpoSettings(), [batch])
    apart = step(model, Frozen(network=frozen, shares_sight=False), DpoSettings(), [batch])
    assert shared[0] == pytest.approx(apart[0], rel=1e-6)
    assert_same(shared[1], apart[1])


def test_a_copy_holds_only_what_learns_a_second_time(model: LlavaNextVideoForConditionalGeneration) -> None:
    frozen = frozen_copy(model)
    before = dict(model.named_parameters())
    for name, parameter in frozen.named_parameters():
        assert (parameter is before[name]) == (not before[name].requires_grad), name
        assert not parameter.requires_grad
    moved(model)
    learned = "model.language_model.layers.0.mlp.up_proj.weight"
    assert not frozen.get_parameter(learned).equal(model.get_parameter(learned))


def test_small_batches_add_up_to_the_large_one(
    model: LlavaNextVideoForConditionalGeneration,
    preferences: list[Preference],
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
    batch: dict,
) -> None:
    reference = Frozen(network=frozen_copy(model), shares_sight=True)
    moved(model)
    pairs = pairs_of(preferences, model, processor, decoder)
    dpo = DpoSettings(sft_weight=0.5)
    large = step(model, reference, dpo, [batch])
    small = step(model, reference, dpo, [PairCollator(0)([pairs[n]]) for n in range(len(pairs))])
    assert small[0] == pytest.approx(large[0], rel=1e-5)
    assert_same(small[1], large[1])
    assert small[2]["reward_margin"] == pytest.approx(large[2]["reward_margin"], rel=1e-4)


def test_a_batch_whose_clips_are_all_missing_has_no_loss(
    model: LlavaNextVideoForConditionalGeneration,
    preferences: list[Preference],
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
    tmp_path: Path,
) -> None:
    gone = preference(tmp_path, 7, chosen="A.", rejected="B.")
    pairs = pairs_of([gone], model, processor, decoder)
    item = pairs[0]
    assert isinstance(item, Dropped)
    assert "clip7" in item.reason
    reference = Frozen(network=frozen_copy(model), shares_sight=True)
    loss, _, _ = step(model, reference, DpoSettings(), [PairCollator(0)([item])])
    assert loss == 0.0
    with pytest.raises(MediaError, match=r"pairs\.jsonl:8: .*clip7"):
        pairs_of([gone], model, processor, decoder, replace(RULES, bad_media="stop"))[0]


def test_answers_beyond_the_context_are_refused_dropped_or_cut_at_their_end(
    model: LlavaNextVideoForConditionalGeneration,
    preferences: list[Preference],
    processor: LlavaNextVideoProcessor,
    decoder: Decoder,
) -> None:
    whole = pairs_of(preferences[1:2], model, processor, decoder)[0]
    assert isinstance(whole, Pair)
    chosen, rejected = rows_of(whole)
    assert len(chosen.ids) > len(rejected.ids)
    short = replace(RULES, context=len(chosen.ids) - 2)
    with pytest.raises(
        CapacityError, match=rf"pairs\.jsonl:2: {len(chosen.ids)} tokens with the longer answer"
    ):
        pairs_of(preferences[1:2], model, processor, decoder, short)[0]
    dropped = pairs_of(preferences[1:2], model, processor, decoder, replace(short, too_long="drop"))[0]
    assert isinstance(dropped, Dropped)
    cut = pairs_of(preferences[1:2], model, processor, decoder, replace(short, too_long="shorten"))[0]
    assert isinstance(cut, Pair)
    assert rows_of(cut)[0].ids.equal(chosen.ids[:-2])


def test_equal_answers_and_conversations_are_no_pairs(media: Path, preferences: list[Preference]) -> None:
    equal = preference(media, 3, chosen="Yes.", rejected=" Yes. ")
    with pytest.raises(DataError, match=r"pairs\.jsonl:4: chosen and rejected are the same answer"):
        wanted_pairs([*preferences, equal], None)
    bad: list[DataError] = []
    assert wanted_pairs([*preferences, equal], bad) == preferences
    assert len(bad) == 1
    with pytest.raises(DataError, match="no pairs to learn from"):
        wanted_pairs([equal], [])


RECIPE = """
model = "{checkpoint}"
output = "{output}"
[data]
sources = [{{path = "pairs.jsonl", root = "{media}"}}]
frames = 3
[learning]
lr = 3e-3
steps = 6
batch = 4
precision = "float32"
warmup = 0
[saving]
every = 3
log_every = 1
"""


@pytest.fixture
def recipe(tmp_path: Path, checkpoint: Path, media: Path) -> Path:
    rows = [
        {"id": n, "prompt": "<video>\nWhat moves?", "chosen": a, "rejected": b, "video": f"clip{n}"}
        for n, (a, b) in enumerate([*SAID, ("A star, which grows.", "A ring.")])
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(checkpoint=checkpoint, media=media, output=tmp_path / "out"))
    return path


def lines_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_language_model_alone_learns_unless_the_recipe_says_more(recipe: Path) -> None:
    assert tuned_parts(read_recipe(recipe, "dpo")) == ("language_model",)
    assert tuned_parts(read_recipe(recipe, "dpo", ["lora.rank=4"])) == ()
    assert read_recipe(recipe, "dpo").learning.schedule == "linear"
    recipe.write_text(recipe.read_text() + "[dpo]\nbeta = 0.2\n")
    with pytest.raises(ConfigError, match=r"\[dpo\] has no effect in `train sft`"):
        read_recipe(recipe, "sft")


def test_the_shipped_recipe_is_that_of_the_published_checkpoint() -> None:
    read = read_recipe(Path(__file__).parents[2] / "runs" / "dpo.toml", "dpo")
    assert read.dpo == DpoSettings(beta=0.1, loss="sigmoid", reference="copy")
    assert (read.learning.lr, read.learning.warmup, read.learning.schedule) == (5e-7, 0.1, "linear")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["dpo.beta=0"], "dpo.beta is 0"),
        (["dpo.loss=orpo"], "expected one of sigmoid, hinge, ipo, kto_pair"),
        (["dpo.betta=0.1"], "did you mean 'dpo.beta'"),
        (["data.pack=true"], "data.pack has no place in `train dpo`"),
    ],
)
def test_a_recipe_out_of_range_is_one_sentence(recipe: Path, settings: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read_recipe(recipe, "dpo", settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["copy", "cached", "adapter"])
def test_every_reference_starts_at_log_two_and_learns_to_prefer(
    recipe: Path, tmp_path: Path, kind: str
) -> None:
    settings = [f"dpo.reference={kind}", *(["lora.rank=4", "lora.dropout=0.0"] if kind == "adapter" else [])]
    trained = run_training(recipe, "dpo", settings)
    lines = lines_of(tmp_path / "out")
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert lines[-1]["loss"] < 0.65
    assert lines[-1]["reward_accuracy"] == 1.0
    assert lines[-1]["rewards_chosen"] > lines[-1]["rewards_rejected"]
    assert lines[-1]["kl"] > 0
    assert trained.steps == 6
    assert (tmp_path / "out" / CACHE).exists() == (kind == "cached")


@pytest.mark.slow
def test_a_cached_reference_gives_the_weights_that_a_copy_gives(recipe: Path, tmp_path: Path) -> None:
    copied = run_training(recipe, "dpo", ["dpo.reference=copy"])
    output = f'output="{tmp_path / "cached"}"'
    lines: list[str] = []
    cached = run_training(recipe, "dpo", ["dpo.reference=cached", output], report=lines.append)
    assert "reference 4/4" in lines
    first, second = (load_file(run.folder / "model.safetensors") for run in (copied, cached))
    assert all((first[name] - second[name]).abs().max() < 1e-5 for name in first)
    shutil.rmtree(tmp_path / "cached" / "checkpoint-6")
    lines.clear()
    again = run_training(recipe, "dpo", ["dpo.reference=cached", output], report=lines.append)
    assert not any(line.startswith("reference") for line in lines)
    third = load_file(again.folder / "model.safetensors")
    assert all(second[name].equal(third[name]) for name in second)


@pytest.mark.slow
def test_a_named_reference_is_compared_with_and_one_of_another_tokenizer_refused(
    recipe: Path, tmp_path: Path, checkpoint: Path
) -> None:
    write_random(tmp_path / "other", PRESETS["tiny"], seed=5)
    settings = ['dpo.reference_model="other"', "learning.steps=1", f'output="{tmp_path / "named"}"']
    run_training(recipe, "dpo", settings)
    assert lines_of(tmp_path / "named")[0]["kl"] > 0.001
    told = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    told["added_tokens"].append({**told["added_tokens"][-1], "id": 9_999, "content": "<new>"})
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"the reference .*other has another tokenizer") as refusal:
        run_training(recipe, "dpo", [*settings[:-1], f'output="{tmp_path / "refused"}"'])
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(recipe: Path, tmp_path: Path) -> None:
    whole = run_training(recipe, "dpo")
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "out", half)
    shutil.rmtree(half / "final")
    shutil.rmtree(half / "checkpoint-6")
    resumed = run_training(recipe, "dpo", [f'output="{half}"'])
    first, second = (load_file(run.folder / "model.safetensors") for run in (whole, resumed))
    assert all(first[name].equal(second[name]) for name in first)
    assert [line["reward_margin"] for line in lines_of(tmp_path / "out")] == [
        line["reward_margin"] for line in lines_of(half)
    ]
