"""Places in the arena: where they lie, and that they come back."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.processes.arena import Arena, Place
from service.backends.processes.forms import aligned
from service.errors import BackendFailed

SIZE_BYTES = 1024
STEPS = st.lists(
    st.one_of(st.integers(1, 400), st.integers(-8, -1)),  # take so many bytes, or give one back
    max_size=40,
)


@contextmanager
def arena_of(size_bytes: int) -> Iterator[Arena]:
    arena = Arena(size_bytes)
    yield arena
    arena.block.close_descriptor()


def lowest_gap(held: list[Place], size_bytes: int) -> int | None:
    """Return where the lowest gap of so many bytes begins."""
    begin = 0
    for place in sorted(held, key=lambda one: one.offset):
        if place.offset - begin >= size_bytes:
            return begin
        begin = place.offset + place.size_bytes
    return begin if SIZE_BYTES - begin >= size_bytes else None


@given(STEPS)
def test_places_are_the_lowest_that_fit_and_never_overlap(steps: list[int]):
    with arena_of(SIZE_BYTES) as arena:
        held: list[Place] = []
        for step in steps:
            if step < 0:
                if held:
                    del held[step % len(held)]
                continue
            expected = lowest_gap(held, aligned(step))
            if expected is None:
                with pytest.raises(BackendFailed, match=f"no room for {step} bytes"):
                    arena.take(step)
                continue
            held.append(arena.take(step))
            assert held[-1].offset == expected
            assert held[-1].size_bytes >= step
            assert arena.free_bytes == SIZE_BYTES - sum(place.size_bytes for place in held)

        held.clear()

        assert arena.free_bytes == SIZE_BYTES
        assert arena.take(SIZE_BYTES).offset == 0  # in one piece


def test_what_is_full_has_room_again_once_somebody_lets_go():
    with arena_of(SIZE_BYTES) as arena:
        held = [arena.take(SIZE_BYTES // 2), arena.take(SIZE_BYTES // 2)]
        with pytest.raises(BackendFailed):
            arena.take(1)

        del held[1]

        assert arena.take(1).offset == SIZE_BYTES // 2


def test_what_one_thread_has_no_other_gets():
    with arena_of(SIZE_BYTES) as arena:
        seen_of_others: list[int] = []

        def churn(name: int) -> None:
            # All of one size: however they come and go, there is room for two of each thread.
            for _ in range(200):
                place = arena.take(SIZE_BYTES // 8)
                arena.block.buffer[place.offset] = name
                held = [arena.take(SIZE_BYTES // 8)]
                held.clear()
                seen = arena.block.buffer[place.offset]
                if seen != name:
                    seen_of_others.append(seen)
                del place

        threads = [Thread(target=churn, args=(name,)) for name in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert seen_of_others == []
        assert arena.free_bytes == SIZE_BYTES


def test_what_another_thread_lets_go_of_is_free_here():
    with arena_of(SIZE_BYTES) as arena:
        held = [arena.take(SIZE_BYTES)]
        thread = Thread(target=held.clear)
        thread.start()
        thread.join()

        assert arena.free_bytes == SIZE_BYTES


def test_a_place_that_only_the_collector_finds_comes_back():
    with arena_of(SIZE_BYTES) as arena:
        ring: list[object] = [arena.take(SIZE_BYTES)]
        ring.append(ring)
        del ring

        gc.collect()

        assert arena.free_bytes == SIZE_BYTES


def test_places_lie_where_vector_instructions_like_them():
    with arena_of(SIZE_BYTES) as arena:
        held = [arena.take(size_bytes) for size_bytes in (1, 65, 64)]

        assert [place.offset % 64 for place in held] == [0, 0, 0]


def test_memory_that_is_not_to_be_had_is_a_failure_of_the_backend():
    with pytest.raises(BackendFailed, match="no memory for features"):
        Arena(2**62)
