"""The losses of preference learning, against arithmetic."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_next_video.errors import ConfigError
from llava_next_video.train.dpo_settings import DpoSettings, check_dpo
from llava_next_video.train.preferences import FIGURES, Answers, pair_losses, preference_loss

# Two pairs: answers of 2 and 1 tokens, then of 1 and 3.
ANSWER = torch.tensor([0, 0, 1, 2, 3, 3, 3])
POLICY = torch.tensor([-1.0, -2.0, -4.0, -0.5, -1.0, -1.5, -0.5])
REFERENCE = torch.tensor([-1.5, -2.5, -3.0, -1.0, -0.5, -1.5, -2.5])
# Policy minus reference, summed: chosen 1.0 and 0.5, rejected -1.0 and 1.5.
CHOSEN, REJECTED = (1.0, 0.5), (-1.0, 1.5)


def answers() -> Answers:
    return Answers(policy=POLICY.clone().requires_grad_(), reference=REFERENCE, answer=ANSWER, pairs=2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_is_the_logistic_loss_of_the_margin(smoothing: float) -> None:
    losses = pair_losses(answers(), DpoSettings(beta=0.3, label_smoothing=smoothing))
    expected = [
        -(1 - smoothing) * math.log(sigmoid(0.3 * (c - r))) - smoothing * math.log(sigmoid(-0.3 * (c - r)))
        for c, r in zip(CHOSEN, REJECTED, strict=True)
    ]
    assert losses.tolist() == pytest.approx(expected)


def test_hinge_wants_a_margin_of_one_over_beta() -> None:
    losses = pair_losses(answers(), DpoSettings(loss="hinge", beta=0.8))
    assert losses.tolist() == pytest.approx([0.0, 1 + 0.8])  # Margins 2 and -1.


def test_ipo_compares_means_over_tokens() -> None:
    losses = pair_losses(answers(), DpoSettings(loss="ipo", beta=0.5))
    assert losses.tolist() == pytest.approx([(1.0 / 2 + 1.0 / 1 - 1) ** 2, (0.5 / 1 - 1.5 / 3 - 1) ** 2])


def test_kto_pair_measures_each_half_against_the_other() -> None:
    losses = pair_losses(answers(), DpoSettings(loss="kto_pair", beta=0.5))
    up, down = max(sum(CHOSEN) / 2, 0), max(sum(REJECTED) / 2, 0)
    expected = [
        (1 - sigmoid(0.5 * (c - down)) + 1 - sigmoid(0.5 * (up - r))) / 2
        for c, r in zip(CHOSEN, REJECTED, strict=True)
    ]
    assert losses.tolist() == pytest.approx(expected)


def test_both_losses_are_weighed_and_the_figures_are_those_of_the_pairs() -> None:
    dpo = DpoSettings(weight=2.0, sft_weight=0.5)
    loss, told = preference_loss(answers(), dpo, torch.tensor([2, 3]))
    preferred = pair_losses(answers(), dpo).mean().item()
    spoken = (1.0 + 2.0 + 0.5) / 3  # Chosen answers have three tokens.
    assert loss.item() == pytest.approx(2.0 * preferred + 0.5 * spoken)
    means = dict(zip(FIGURES, (told[0] / told[1]).tolist(), strict=True))
    assert means["rewards_chosen"] == pytest.approx(0.1 * sum(CHOSEN) / 2)
    assert means["rewards_rejected"] == pytest.approx(0.1 * sum(REJECTED) / 2)
    assert means["reward_margin"] == pytest.approx(0.1 * (2.0 - 1.0) / 2)
    assert means["reward_accuracy"] == 0.5
    assert means["logp_chosen"] == pytest.approx((-3.0 - 0.5) / 2)
    assert means["logp_rejected"] == pytest.approx((-4.0 - 3.0) / 2)
    ratios = (POLICY - REFERENCE).tolist()
    assert means["kl"] == pytest.approx(sum(math.exp(-r) - 1 + r for r in ratios) / 7)
    assert means["dpo_loss"] == pytest.approx(preferred)
    assert means["sft_loss"] == pytest.approx(spoken)


def test_the_figures_of_a_step_do_not_depend_on_how_it_is_cut_into_batches() -> None:
    dpo, items = DpoSettings(sft_weight=0.5), torch.tensor([2, 3])
    _, whole = preference_loss(answers(), dpo, items)
    parts = []
    for pair in range(2):
        mine = pair == ANSWER // 2  # Pairs of unlike length: 4 and 3 tokens of chosen and rejected answers.
        cut = Answers(policy=POLICY[mine], reference=REFERENCE[mine], answer=ANSWER[mine] - 2 * pair, pairs=1)
        parts.append(preference_loss(cut, dpo, items)[1])
    torch.testing.assert_close(sum(parts), whole)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-3, 3), smoothing=st.sampled_from([0.0, 0.2]))
def test_without_a_difference_to_the_reference_the_loss_is_log_two(shift: float, smoothing: float) -> None:
    same = POLICY + shift
    equal = Answers(policy=same, reference=same.clone(), answer=ANSWER, pairs=2)
    losses = pair_losses(equal, DpoSettings(label_smoothing=smoothing))
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (DpoSettings(beta=0.0), "dpo.beta is 0; expected a number above 0"),
        (DpoSettings(beta=-0.1), "dpo.beta is -0.1"),
        (DpoSettings(beta=math.nan), "dpo.beta is nan"),
        (
            DpoSettings(label_smoothing=0.5),
            "dpo.label_smoothing is 0.5; expected a share from 0 to below 0.5",
        ),
        (DpoSettings(label_smoothing=0.1, loss="ipo"), "has no effect with loss 'ipo'"),
        (DpoSettings(weight=0.0), "use `train sft`"),
        (DpoSettings(sft_weight=-1.0), "dpo.sft_weight is -1"),
        (DpoSettings(reference="adapter"), "needs lora.rank"),
    ],
)
def test_settings_out_of_range_are_one_sentence(given: DpoSettings, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refusal:
        check_dpo(given, lora=False, sharded=None)
    assert "\n" not in str(refusal.value)


def test_a_copy_is_refused_where_the_weights_are_split() -> None:
    with pytest.raises(ConfigError, match=r"trainer.fsdp splits the weights.* 'cached'"):
        check_dpo(DpoSettings(), lora=False, sharded="fsdp")
    check_dpo(DpoSettings(), lora=True, sharded="fsdp")
