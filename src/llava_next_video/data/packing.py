"""Several questions about one clip in one sequence, each blind to the others.

What all conversations share (system, clip) stands once at the front; each conversation follows as a branch
that sees the front and itself, with positions that go on from the front. Every branch so gets exactly the
hidden states and gradients it would have alone, and the clip is seen by the tower once.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava_next_video.data.encode import Encoded, expanded_length


def shared_front(samples: Sequence[Encoded], placeholders: Sequence[int]) -> int:
    """How many ids all samples begin with, up to the last medium; 0 where they cannot share it."""
    first = samples[0]
    ends = [number + 1 for number, token in enumerate(first.ids) if token in placeholders]
    front = ends[-1] if ends else 0
    for sample in samples:
        learned = any(label >= 0 for label in sample.labels[:front])
        again = any(token in placeholders for token in sample.ids[front:])
        if sample.ids[:front] != first.ids[:front] or learned or again:
            return 0
    return front


def pack(samples: Sequence[Encoded], front: int) -> Encoded:
    """The samples as branches behind the `front` ids that they share.

    >>> one = Encoded(ids=(9, 1), labels=(-100, 1), branches=(0, 0), media=())
    >>> two = Encoded(ids=(9, 2), labels=(-100, 2), branches=(0, 0), media=())
    >>> pack([one, two], front=1)
    Encoded(ids=(9, 1, 2), labels=(-100, 1, 2), branches=(0, 1, 2), media=())
    """
    ids, labels = list(samples[0].ids[:front]), list(samples[0].labels[:front])
    branches = [0] * front
    for number, sample in enumerate(samples, start=1):
        ids += sample.ids[front:]
        labels += sample.labels[front:]
        branches += [number] * (len(sample.ids) - front)
    return Encoded(ids=tuple(ids), labels=tuple(labels), branches=tuple(branches), media=samples[0].media)


def pack_groups(
    samples: Sequence[Encoded], placeholders: Sequence[int], visual: Sequence[int], limit: int
) -> list[list[int]]:
    """Which samples about one medium go into one sequence of at most `limit` tokens, in order.

    `visual` has the visual tokens of each medium. A sample that shares no front, or is too long beside the
    others, stays alone.
    """
    groups: list[list[int]] = []
    room = 0
    front = shared_front(samples, placeholders)
    for number, sample in enumerate(samples):
        length = expanded_length(sample, visual)
        shared = front + sum(visual) - len(visual)
        if front and groups and length - shared <= room:
            groups[-1].append(number)
            room -= length - shared
        else:
            groups.append([number])
            room = limit - length
    return groups
