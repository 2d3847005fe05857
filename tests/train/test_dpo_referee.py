"""Preference learning against TRL's trainer: the same batch, the same numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.test_dpo import SAID, assert_same, moved, pairs_of, preference, rows_of, step, without_notes
from torch import Tensor

from llava_next_video.data.collate import Collator
from llava_next_video.data.decoder import Decoder
from llava_next_video.data.encode import IGNORED
from llava_next_video.model import LlavaNextVideoForConditionalGeneration
from llava_next_video.processing import LlavaNextVideoProcessor
from llava_next_video.train.comparing import token_logprobs
from llava_next_video.train.dpo_settings import DpoSettings
from llava_next_video.train.pairs import Pair, PairCollator
from llava_next_video.train.parts import open_parts
from llava_next_video.train.reference import Frozen, frozen_copy

pytestmark = [
    pytest.mark.slow,
    # TRL and datasets warn about themselves.
    pytest.mark.filterwarnings("ignore"),
]


def theirs(items: list[Pair]) -> dict[str, Any]:
    """The pairs as TRL wants a batch: all chosen rows, then all rejected ones, each with its own clip."""
    rows = [rows_of(item) for item in items]
    batch = without_notes(Collator(0)([chosen for chosen, _ in rows] + [rejected for _, rejected in rows]))
    batch["completion_mask"] = (batch.pop("labels") != IGNORED).long()
    return batch


def load(checkpoint: Path) -> LlavaNextVideoForConditionalGeneration:
    model = LlavaNextVideoForConditionalGeneration.from_pretrained(checkpoint).train()
    open_parts(model, ["language_model"])
    return model


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (DpoSettings(beta=0.3), {"loss_type": ["sigmoid"]}),
        (DpoSettings(beta=0.3, loss="hinge"), {"loss_type": ["hinge"]}),
        (DpoSettings(beta=0.3, loss="ipo"), {"loss_type": ["ipo"]}),
        (
            DpoSettings(beta=0.3, weight=0.8, sft_weight=0.5),
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.8, 0.5]},
        ),
    ],
    ids=["sigmoid", "hinge", "ipo", "sigmoid and sft"],
)
def test_log_probabilities_loss_gradients_and_rewards_are_those_of_trl(
    given: DpoSettings, asked: dict[str, Any], checkpoint: Path, media: Path, tmp_path: Path
) -> None:
    trl = pytest.importorskip("trl", reason="trl is not installed; pip install 'llava-next-video[dev]'")
    datasets = pytest.importorskip(
        "datasets", reason="datasets, which the referee reads pairs from, is not installed"
    )
    processor = LlavaNextVideoProcessor.from_pretrained(checkpoint)
    ours = load(checkpoint)
    with Decoder() as decoder:
        pairs = pairs_of(
            [preference(media, n, chosen=a, rejected=b) for n, (a, b) in enumerate(SAID)],
            ours,
            processor,
            decoder,
        )
        items = [item for n in range(len(pairs)) if isinstance(item := pairs[n], Pair)]
    trainer = trl.DPOTrainer(
        moved(load(checkpoint)),
        ref_model=load(checkpoint).eval(),
        args=trl.DPOConfig(
            output_dir=str(tmp_path),
            remove_unused_columns=False,
            max_length=None,
            beta=0.3,
            report_to="none",
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            **asked,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 3),
        data_collator=lambda rows: rows,
        processing_class=processor.tokenizer,
    )
    batch = theirs(items)
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED)
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    rows = trainer.model(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs
    spoken = [row[mask].detach() for row, mask in zip(rows, labels[:, 1:] != IGNORED, strict=True)]
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    expected = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    rewards = {name: values[-1] for name, values in trainer._metrics["train"].items()}

    reference = Frozen(network=frozen_copy(ours), shares_sight=True)
    moved(ours)
    packed = PairCollator(0)(items)
    with torch.no_grad():
        logprobs: Tensor = token_logprobs(ours, without_notes(packed))
    count = len(items)
    in_our_order = [spoken[row] for pair in range(count) for row in (pair, count + pair)]
    torch.testing.assert_close(logprobs, torch.cat(in_our_order), rtol=1e-4, atol=1e-5)
    own_loss, gradients, told = step(ours, reference, given, [packed])
    assert own_loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert_same(gradients, expected)
    assert told["rewards_chosen"] == pytest.approx(rewards["rewards/chosen"], rel=1e-3, abs=1e-6)
    assert told["rewards_rejected"] == pytest.approx(rewards["rewards/rejected"], rel=1e-3, abs=1e-6)
    assert told["reward_margin"] == pytest.approx(rewards["rewards/margins"], rel=1e-3, abs=1e-6)
    assert told["reward_accuracy"] == pytest.approx(rewards["rewards/accuracies"])
    assert told["logp_chosen"] == pytest.approx(rewards["logps/chosen"], rel=1e-4)
    assert told["logp_rejected"] == pytest.approx(rewards["logps/rejected"], rel=1e-4)
