"""Pages: never lost, never confused."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.conftest import clip

from llava_next_video.engine.pages import PagePool, page_hashes
from llava_next_video.inputs import Medium


def test_a_page_hash_stands_for_all_that_comes_before_it() -> None:
    start = list(range(8))
    assert page_hashes(start, [], page_tokens=4)[1] != page_hashes([9, *start[1:]], [], page_tokens=4)[1]
    assert page_hashes(start, [], page_tokens=4)[1] != page_hashes(start[4:], [], page_tokens=4)[0]


def test_known_hashes_are_carried_on() -> None:
    ids = list(range(20))
    whole = page_hashes(ids, [], page_tokens=4)
    assert page_hashes(ids, [], page_tokens=4, known=whole[:2]) == whole


def test_equal_placeholders_of_different_clips_hash_differently() -> None:
    one, two = clip(1, 4), clip(2, 4)
    ids = [300] * one.tokens
    assert page_hashes(ids, [one], page_tokens=4) != page_hashes(ids, [two], page_tokens=4)
    assert page_hashes(ids, [one], page_tokens=4) == page_hashes(ids, [clip(1, 4)], page_tokens=4)


def test_the_same_clip_at_another_offset_hashes_differently() -> None:
    key = hashlib.sha256(b"a clip").digest()

    def at(start: int) -> Medium:
        return Medium(kind="video", start=start, tokens=8, key=key, size=None, pixels=clip(1, 2).pixels)

    ids = [300] * 16
    assert page_hashes(ids, [at(0)], page_tokens=8) != page_hashes(ids, [at(1)], page_tokens=8)


def test_salt_separates_tenants() -> None:
    ids = list(range(8))
    assert page_hashes(ids, [], page_tokens=4, salt=b"a") != page_hashes(ids, [], page_tokens=4, salt=b"b")


def test_hashes_have_256_bits() -> None:
    assert len(page_hashes([1, 2], [], page_tokens=2)[0]) == 32


def test_a_growing_request_keeps_its_pages_in_a_row() -> None:
    pool = PagePool(32, 4)
    one = pool.take(3, owner=(1, 0), growth=4)
    two = pool.take(3, owner=(2, 0), growth=4)
    for _ in range(4):
        one += pool.take(1, owner=(1, 0), after=one[-1])
        two += pool.take(1, owner=(2, 0), after=two[-1])
    assert one == list(range(one[0], one[0] + 7))
    assert two == list(range(two[0], two[0] + 7))


def test_the_tail_of_a_released_request_is_forgotten_first() -> None:
    pool = PagePool(4, 4)
    pages = pool.take(4, owner=(1, 0))
    hashes = page_hashes(range(16), [], page_tokens=4)
    for page, digest in zip(pages, hashes, strict=True):
        pool.publish(page, digest)
    pool.release(pages, owner=(1, 0))
    assert pool.match(hashes) == pages
    pool.take(1, owner=(2, 0))
    assert pool.match(hashes) == pages[:3]


def test_pages_in_use_are_not_given_away() -> None:
    pool = PagePool(4, 4)
    pool.take(3, owner=(1, 0))
    with pytest.raises(ValueError, match="2 pages wanted, 1 available"):
        pool.take(2, owner=(2, 0))


def test_a_page_shared_by_two_returns_only_after_both() -> None:
    pool = PagePool(2, 4)
    pages = pool.take(1, owner=(1, 0))
    pool.publish(pages[0], b"x" * 32)
    pool.hold(pages)
    pool.release(pages, owner=(1, 0))
    assert pool.counts().used == 1
    pool.release(pages, owner=(2, 0))
    assert (pool.counts().used, pool.counts().cached, pool.counts().free) == (0, 1, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(0, 5)), max_size=40))
def test_pages_never_leak(steps: list[tuple[int, int, int]]) -> None:
    """Requests (known by a number, with a prompt of so many pages that depends on a topic) come and go."""
    pool = PagePool(16, 4)
    held: dict[int, list[int]] = {}
    for number, count, topic in steps:
        if number in held:
            pages = held.pop(number)
            pool.release(pages, owner=(number, 0))
        else:
            hashes = page_hashes([topic] * (4 * count), [], page_tokens=4)
            matched = pool.match(hashes)
            missing = count - len(matched)
            if missing + pool.idle_among(matched) > pool.available:
                continue
            pool.hold(matched)
            taken = pool.take(
                missing, owner=(number, 0), after=matched[-1] if matched else None, growth=topic
            )
            assert not set(taken) & {page for pages in held.values() for page in pages}
            held[number] = matched + taken
            for page, digest in zip(held[number], hashes, strict=True):
                pool.publish(page, digest)
        pool.check(held.values())
    for number, pages in held.items():
        pool.release(pages, owner=(number, 0))
    pool.check([])
    assert pool.available == 16
