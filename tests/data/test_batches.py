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
    shares = []
    for process in range(shape.processes):
        plan = BatchPlan(lengths, shape, seed=7, process=process)
        plan.set_epoch(epoch)
        shares.append(list(plan))
        assert len(shares[-1]) == len(plan)
        assert -(-len(plan) // shape.accumulate) == plan.steps
    batches = [batch for share in shares for batch in share]
    learned = [index for batch in batches for index in batch if index >= 0]
    assert sorted(learned) == list(range(len(lengths)))
    assert len({len(share) for share in shares}) == 1
    assert all(1 <= len(batch) <= shape.size for batch in batches)
    assert not any(index < 0 for batch in shares[0] for index in batch)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), SHAPES)
def test_processes_step_on_the_samples_of_one_process(samples: int, shape: BatchShape) -> None:
    lengths = list(range(samples))
    alone = BatchShape(size=shape.step)
    together = [list(BatchPlan(lengths, shape, seed=3, process=it)) for it in range(shape.processes)]
    for step, wanted in enumerate(BatchPlan(lengths, alone, seed=3)):
        own = slice(step * shape.accumulate, (step + 1) * shape.accumulate)
        seen = [index for share in together for batch in share[own] for index in batch if index >= 0]
        assert sorted(seen) == sorted(wanted)


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
