"""Batches hold every sample once, by length, and the same ones for the same seed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llava_next_video.data.batches import BatchPlan, BatchShape, padding_share, plan_batches

SHAPES = st.builds(
    BatchShape, size=st.integers(1, 5), accumulate=st.integers(1, 4), processes=st.integers(1, 3)
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=300), SHAPES, st.integers(0, 9))
def test_an_epoch_holds_every_sample_once(lengths: list[int], shape: BatchShape, epoch: int) -> None:
    plan = BatchPlan(lengths, shape, seed=7)
    plan.set_epoch(epoch)
    batches = list(plan)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == len(plan)
    assert all(1 <= len(batch) <= shape.size for batch in batches)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200), st.integers(0, 9))
def test_accumulated_batches_hold_what_one_large_batch_holds(lengths: list[int], epoch: int) -> None:
    large = plan_batches(lengths, BatchShape(size=8), seed=1, epoch=epoch)
    small = plan_batches(lengths, BatchShape(size=1, accumulate=8), seed=1, epoch=epoch)
    assert [index for batch in large for index in batch] == [index for batch in small for index in batch]
    assert all(len(batch) == 8 for batch in large[:-1])


def test_epochs_differ_and_a_seed_repeats_them() -> None:
    lengths = [10] * 64
    first, again, other = (
        plan_batches(lengths, BatchShape(size=4), seed=0, epoch=epoch) for epoch in (0, 0, 1)
    )
    assert first == again != other


def test_grouping_by_length_leaves_little_padding() -> None:
    lengths = [10 if index % 2 else 1000 for index in range(640)]
    in_order = [[index, index + 1] for index in range(0, 640, 2)]
    assert round(padding_share(lengths, in_order), 3) == 0.495  # Half of each pair is 990 paddings of 2,000.
    assert padding_share(lengths, plan_batches(lengths, BatchShape(size=2), seed=0, epoch=0)) < 0.02
